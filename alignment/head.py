"""The output layer of a causal model: the hidden states that go into it, and log-probs of tokens without its logits."""

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from alignment.batching import KEPT

CHUNK = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Logits that are computed together; on a CPU 8 MiB, which its caches and the allocator's free lists hold."""

_PROBE_TOKENS, _PROBE_LOGIT = 4, 1e3
_is_linear: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def logprobs_at(
    model: Any, positions: Tensor, targets: Tensor, *, entropy: bool = False, **inputs: Any
) -> tuple[Tensor, Tensor | None]:
    """log p(target) of T tokens, and where asked for the entropy of what was predicted there, in nats, fp32, [T] each.

    `positions` [T] are those that predict `targets` [T], numbered through the model's `inputs` row by row. The output
    layer works on them alone, which saves the prompt's and the padding's share of its cost.
    """
    if is_plain(unwrapped(model)):
        head = unwrapped(model).get_output_embeddings()
        hidden = hidden_states(model, **inputs).flatten(0, -2).index_select(0, positions)
        return token_logprobs(hidden, head.weight, head.bias, targets, entropy=entropy)
    logits = logits_at(model, positions, **inputs)
    total = logits.logsumexp(-1)
    found = logits.gather(-1, targets[:, None])[:, 0] - total
    if not entropy:
        return found, None
    with torch.no_grad():
        return found, total - ((logits - total[:, None]).exp() * logits).sum(-1)


def logits_at(model: Any, positions: Tensor, **inputs: Any) -> Tensor:
    """The model's own logits at T positions, numbered through its `inputs` row by row, fp32: [T, V].

    All is the model's own forward pass: some scale or cap what goes into or comes out of the output layer.
    """

    def select(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0].flatten(0, -2).index_select(0, positions)[None],)

    with unwrapped(model).get_output_embeddings().register_forward_pre_hook(select):
        logits: Tensor = model(**inputs, use_cache=False).logits[0]
    return logits.float()


def hidden_states(model: Any, **inputs: Any) -> Tensor:
    """What the output layer of a causal model is given, [rows, tokens, E], in the precision that it would compute in.

    It is the model's own forward pass, in which that layer gets no rows and so costs nothing.
    """
    caught: list[Tensor] = []

    def catch(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        kind = given[0].device.type
        caught.append(given[0].to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else given[0])
        return (given[0][..., :0, :],)

    with unwrapped(model).get_output_embeddings().register_forward_pre_hook(catch):
        model(**inputs, use_cache=False)
    return caught[0]


def unwrapped(model: Any) -> Any:
    """The model itself, which stands within another module where several processes train it."""
    return model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model


def is_plain(model: Any) -> bool:
    """Whether a causal model's logits are what its output layer's weight and bias make of its hidden states, no more.

    Some scale or cap logits, and an adapter may stand on that layer; of one that is sharded among processes, the weight
    is there within the forward pass alone. It is tried, once per model, on hidden states that
    are stretched until their logits are far beyond any cap.
    """
    head = model.get_output_embeddings()
    if head is None or not {name for name, _ in head.named_parameters()} <= {"weight", "bias"}:
        return False
    if hasattr(getattr(head, "weight", None), "full_tensor"):
        return False
    if model not in _is_linear:
        try:
            _is_linear[model] = _predicts_linearly(model, head)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # noqa: BLE001 - a layer of another kind; what is wrong with the model, its own logits show
            _is_linear[model] = False
    return _is_linear[model]


@torch.no_grad()
def _predicts_linearly(model: Any, head: Any) -> bool:
    expected: list[Tensor] = []

    def stretch(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        logits = functional.linear(given[0], head.weight, head.bias)
        stretched = given[0] * (_PROBE_LOGIT / logits.abs().max())
        expected.append(functional.linear(stretched, head.weight, head.bias))
        return (stretched,)

    ids = torch.arange(min(_PROBE_TOKENS, len(head.weight)), device=head.weight.device)[None]
    hidden_states(model, input_ids=ids)  # not every layer takes no rows
    with head.register_forward_pre_hook(stretch):
        logits = model(input_ids=ids, use_cache=False).logits
    allowed = max(1e-3, 4 * torch.finfo(expected[0].dtype).eps)
    return bool((logits.float() - expected[0].float()).abs().max() <= allowed * _PROBE_LOGIT)


def token_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """log p(target) under softmax(hidden @ weight.T + bias), and the entropy of that softmax where it is asked for.

    hidden [T, E], weight [V, E], bias [V], targets [T] below V -> [T] each, in nats, in fp32 whatever is given (fp64 of
    fp64). The product is computed in the precision of `hidden`, or of autocast. The entropy has no gradient. A target
    that is not below V has the log-prob NaN.

    The logits [T, V] are worked through in chunks of the vocabulary and are never held twice; where there are more
    than `KEPT`, not even once: the backward pass computes each chunk again, from the log of the sum of exponentials.
    """
    learns = torch.is_grad_enabled()  # which is always off within the function
    found, entropies = _TokenLogprobs.apply(hidden, weight, bias, targets, entropy, learns)  # type: ignore[no-untyped-call]
    return found, entropies if entropy else None


class _TokenLogprobs(torch.autograd.Function):
    """∂ log p(y) / ∂ logits = onehot(y) − p, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, entropy: bool, learns: bool
    ) -> tuple[Tensor, Tensor]:
        kind = hidden.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        exact = torch.promote_types(ctx.dtype, torch.float32)
        keep = learns and any(ctx.needs_input_grad) and len(hidden) * len(weight) <= KEPT.get(kind, KEPT["cuda"])
        total = torch.full((len(hidden),), -torch.inf, dtype=exact, device=hidden.device)
        found, mean = torch.full_like(total, torch.nan), torch.zeros_like(total)
        ctx.kept = []
        with torch.autocast(kind, enabled=False):
            given = hidden.to(ctx.dtype)
            for part in _chunks(len(hidden), len(weight), kind):
                logits = _logits(given, weight, bias, part)
                local, inside = _local(targets, part)
                found = torch.where(inside, logits.gather(1, local)[:, 0], found)
                top = logits.amax(1)
                parts = logits.sub_(top[:, None]).exp_()
                size = parts.sum(1)
                of_part = top + size.log()
                both = torch.logaddexp(total, of_part)
                if entropy:  # of p, the mean logit, of which the entropy is short of the log of the sum
                    of_logit = top - torch.special.entr(parts).sum(1) / size
                    mean = mean * (total - both).exp() + of_logit * (of_part - both).exp()
                total = both
                if keep:
                    ctx.kept.append((parts, top))
        ctx.save_for_backward(hidden, weight, bias, targets, total)
        entropies = total - mean
        ctx.mark_non_differentiable(entropies)
        return found - total, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, total = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        kept, ctx.kept = ctx.kept[::-1], []  # they are used up: a second backward pass computes them again
        of_hidden = torch.zeros_like(hidden, dtype=ctx.dtype) if wanted[0] else None
        of_weight = torch.empty_like(weight) if wanted[1] else None
        of_bias = torch.empty_like(bias) if bias is not None and wanted[2] else None
        with torch.autocast(hidden.device.type, enabled=False):
            given = hidden.to(ctx.dtype)
            for part in _chunks(len(hidden), len(weight), hidden.device.type):
                if kept:
                    parts, top = kept.pop()
                    parts.mul_((-gradient * (top - total).exp())[:, None])
                else:
                    parts = _logits(given, weight, bias, part).sub_(total[:, None]).exp_().mul_(-gradient[:, None])
                local, inside = _local(targets, part)
                parts.scatter_add_(1, local, torch.where(inside, gradient, 0.0)[:, None])
                if of_bias is not None:
                    of_bias[part] = parts.sum(0)
                parts = parts.to(ctx.dtype)
                if of_hidden is not None:
                    of_hidden.addmm_(parts, weight[part].to(ctx.dtype))
                if of_weight is not None and of_weight.dtype == ctx.dtype:
                    torch.mm(parts.t(), given, out=of_weight[part])
                elif of_weight is not None:
                    of_weight[part] = parts.t() @ given
        return None if of_hidden is None else of_hidden.to(hidden.dtype), of_weight, of_bias, None, None, None


def _chunks(tokens: int, vocabulary: int, kind: str) -> Iterator[slice]:
    width = max(1, CHUNK.get(kind, CHUNK["cuda"]) // max(1, tokens))
    width = -(-vocabulary // -(-vocabulary // width))  # all of like width
    return (slice(start, min(start + width, vocabulary)) for start in range(0, vocabulary, width))


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, part: slice) -> Tensor:
    """Of a chunk of the vocabulary [T, v], in fp32 (fp64 of fp64), in memory of their own."""
    logits = hidden @ weight[part].to(hidden.dtype).t()
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if bias is None else logits.add_(bias[part])


def _local(targets: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """The place of each target in a chunk [T, 1], any where it is not there, and whether it is [T]."""
    local = targets - part.start
    inside = (local >= 0) & (local < part.stop - part.start)
    return local.clamp(0, part.stop - part.start - 1)[:, None], inside
