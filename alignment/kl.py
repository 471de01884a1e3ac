"""KL(policy || reference) of sequences that the policy wrote, exact over the vocabulary at each of their tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from alignment import flat
from alignment.batching import batch_tokens as tokens_at_once
from alignment.batching import in_batches
from alignment.conventions import embeddings, require_known, text_config
from alignment.head import CHUNK, hidden_states, is_plain, logits_at
from alignment.layout import Layout, Tokens, lay_flat, lay_padded
from alignment.logprobs import TRIED, computing, together, why_padded
from alignment.models import using
from alignment.selfcheck import SelfCheck, plain_logprob

Logits = Callable[[slice], Tensor]
"""The logits of some of T positions, fp32: [t, V]."""


@dataclass(frozen=True, eq=False)
class Divergence:
    """What two models make of the same N completions: sums over each, in nats, [N] each."""

    policy: NDArray[np.float64]
    """log p(completion | prompt) under the policy."""
    reference: NDArray[np.float64]
    """The same under the reference."""
    kl: NDArray[np.float64]
    """KL(policy || reference) of the next token, summed over the completion's positions."""


@torch.inference_mode()
def divergence(
    policy: Any,
    reference: Any,
    prompts: Sequence[Tokens],
    completions: Sequence[Tokens],
    *,
    pad_id: int,
    batch_tokens: int = 0,
    name: str = "the policy",
    progress: Callable[[int, int], None] | None = None,
) -> Divergence:
    """Of N completions that the policy wrote at temperature 1, how far it is from the reference where it wrote them.

    At each position sum_v pi(v) (log pi(v) - log pi_ref(v)): the mean of its sum over samples estimates the KL of whole
    sequences without bias, as the mean of `policy - reference` does, and varies less. One forward pass of each model
    gives all three. Batched by length and returned in the given order; a batch has at most `batch_tokens` tokens, as
    many as the machine takes where that is 0. Raises as `alignment.logprobs.score_completions` does.
    """
    models = (policy, reference)
    for model in models:
        require_known([*prompts, *completions], embeddings(model), name)
    checks = [SelfCheck("KL", name, policy), SelfCheck("KL", "the reference", reference)]
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    found = np.empty((3, len(prompts)), dtype=np.float64)
    with using(name, "KL"):
        some = prompts[:TRIED], completions[:TRIED]
        is_flat = len(prompts) > 1 and not any(why_padded(model, *some, name) for model in models)

    def work(rows: list[int]) -> None:
        before, after = [prompts[row] for row in rows], [completions[row] for row in rows]
        layout = (lay_flat(before, after) if is_flat else lay_padded(before, after, pad_id)).to(policy.device)
        with using(name, "KL"):
            per_token = torch.stack(divergence_at(policy, reference, layout)).double()
        sums = per_token.new_zeros(3, len(rows)).index_add(1, layout.rows, per_token).cpu().numpy()
        for model, check, logprobs in zip(models, checks, sums, strict=False):
            check.logprobs(
                logprobs.tolist(),
                list(map(len, after)),
                lambda row, model=model: plain_logprob(model, before[row], after[row]),  # type: ignore[misc]
                padded=len({lengths[row] for row in rows}) > 1,
            )
        found[:, rows] = sums

    in_batches(
        together(prompts, lengths) if is_flat else lengths,
        tokens_at_once(policy, batch_tokens, sum(map(_bytes_per_token, models))),
        work,
        name=name,
        field="sampling.batch_tokens",
        progress=progress,
    )
    return Divergence(*found)


def divergence_at(policy: Any, reference: Any, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """log pi(y), log pi_ref(y) and KL(pi || pi_ref) of what was predicted, at each of C completion tokens: [C] each.

    In nats, fp32. The logits are computed some positions at a time: those of both models are never held at once, unless
    a model does more to its logits than its output layer's product.
    """
    own, others = (_logits(model, layout) for model in (policy, reference))
    width = max(1, CHUNK.get(layout.ids.device.type, CHUNK["cuda"]) // max(1, embeddings(policy) or 1))
    parts = [slice(start, start + width) for start in range(0, len(layout.targets), width)]
    found = [_divergence(own(part), others(part), layout.targets[part]) for part in parts]
    return tuple(torch.cat(each) for each in zip(*found, strict=True))  # type: ignore[return-value]


def _divergence(policy: Tensor, reference: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits [t, V] and targets [t]: log p of the target under both, and the KL over the vocabulary."""
    own, others = policy.log_softmax(-1), reference.log_softmax(-1)
    chances = own.exp()
    terms = (chances * (own - others)).masked_fill_(chances == 0, 0.0)  # 0 log 0 is 0, also where a logit is -inf
    at = targets[:, None]
    return own.gather(1, at)[:, 0], others.gather(1, at)[:, 0], terms.sum(-1)


def _logits(model: Any, layout: Layout) -> Logits:
    """Of a model at the positions that predict the completions' tokens."""
    inputs = flat.inputs(layout)
    with computing(model, is_flat=layout.is_flat):
        if not is_plain(model):
            logits = logits_at(model, layout.predicts, **inputs)
            return lambda part: logits[part]
        hidden = hidden_states(model, **inputs).flatten(0, -2).index_select(0, layout.predicts)
    head = model.get_output_embeddings()
    return lambda part: functional.linear(hidden[part], head.weight, head.bias).float()


def _bytes_per_token(model: Any) -> int:
    """What a token takes in a forward pass at most: a row of logits, and a layer's states, all fp32."""
    hidden = getattr(text_config(model.config), "hidden_size", 0)
    return 4 * (2 * (embeddings(model) or 0) + 32 * hidden)
