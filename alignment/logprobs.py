"""Log-probabilities of given completions under a causal model, from token ids and never from text."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignment import flat
from alignment.activations import one_kernel
from alignment.batching import batch_tokens as tokens_at_once
from alignment.batching import in_batches
from alignment.conventions import embeddings, require_known, text_config
from alignment.errors import SelfCheckError
from alignment.head import is_plain, logprobs_at
from alignment.layout import Layout, Tokens, lay_flat, lay_padded
from alignment.models import using
from alignment.selfcheck import SelfCheck, plain_logprob

logger = logging.getLogger(__name__)

TRIED = 4
"""Sequences on which a flat layout is tried."""

_why_padded: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def logprobs(model: Any, layout: Layout, *, entropy: bool = False) -> tuple[Tensor, Tensor | None]:
    """log p(completion | prompt) of R sequences [R], and where asked for the entropy at each token [C], fp32, in nats.

    The entropy has no gradient. Under a flat layout the model has to be `computing` flat.
    """
    tokens, entropies = logprobs_at(model, layout.predicts, layout.targets, entropy=entropy, **flat.inputs(layout))
    return tokens.new_zeros(len(layout.lengths)).index_add(0, layout.rows, tokens), entropies


@contextmanager
def computing(model: Any, *, is_flat: bool) -> Iterator[None]:
    """What a model's own code does slowly, done fast, under a layout of this kind; it is its own again at the end."""
    with ExitStack() as stack:
        stack.enter_context(one_kernel(model))
        if is_flat:
            stack.enter_context(flat.attention(model))
        yield


def why_padded(model: Any, prompts: Sequence[Tokens], completions: Sequence[Tokens], name: str = "the model") -> str:
    """Why a model has to be given padded rows; empty where flat ones have the log-probs of a plain forward pass.

    It is tried on the given sequences, and logged, once per model.
    """
    if model not in _why_padded:
        reason = _fault_of_flat(model, prompts, completions)
        logger.info("%s: texts lie %s", name, f"in padded rows: {reason}" if reason else "flat, without padding")
        _why_padded[model] = reason
    return _why_padded[model]


@torch.no_grad()
def _fault_of_flat(model: Any, prompts: Sequence[Tokens], completions: Sequence[Tokens]) -> str:
    if not flat.can_serve(model):
        return "its attention knows no other layout"
    is_plain(model)  # which is found with the model's own attention
    layout = lay_flat(prompts, completions).to(next(model.parameters()).device)
    try:
        with computing(model, is_flat=True):
            found = logprobs(model, layout)[0].tolist()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - what the model's code raises; on padded rows it may run
        return f"flat, it cannot be run ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    try:
        SelfCheck("flat", name="it", model=model).logprobs(
            found,
            [len(completion) for completion in completions],
            lambda row: plain_logprob(model, prompts[row], completions[row]),
            padded=True,
        )
    except SelfCheckError:
        return "flat, they would have other log-probs"
    return ""


@torch.inference_mode()
def score_completions(
    model: Any,
    prompts: Sequence[Tokens],
    completions: Sequence[Tokens],
    *,
    pad_id: int,
    batch_tokens: int = 0,
    name: str = "the model",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """log p(completion | prompt) of N sequences, in nats, shape [N]; batched by length, returned in the given order.

    A batch has at most `batch_tokens` tokens, as many as the machine takes where that is 0. Raises ModelError where the
    model, which errors call `name`, lacks a token or cannot be run, and SelfCheckError where the log-probs of a batch
    are not those of its sequences one by one.
    """
    device = next(model.parameters()).device
    require_known([*prompts, *completions], embeddings(model), name)
    check = SelfCheck("scoring", name, model)
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    found = np.empty(len(prompts), dtype=np.float64)
    is_flat = len(prompts) > 1 and not _why_not_flat(model, prompts, completions, lengths, name)

    def score(rows: list[int]) -> None:
        before, after = [prompts[row] for row in rows], [completions[row] for row in rows]
        layout = lay_flat(before, after) if is_flat else lay_padded(before, after, pad_id)
        with using(name, "scoring"), computing(model, is_flat=is_flat):
            found[rows] = logprobs(model, layout.to(device))[0].double().cpu().numpy()
        check.logprobs(
            found[rows].tolist(),
            list(map(len, after)),
            lambda row: plain_logprob(model, before[row], after[row]),
            padded=len({lengths[row] for row in rows}) > 1,
        )

    tokens = tokens_at_once(model, batch_tokens, _bytes_per_token(model))
    in_batches(
        together(prompts, lengths) if is_flat else lengths,
        tokens,
        score,
        name=name,
        field="sampling.batch_tokens",
        progress=progress,
    )
    return found


def together(prompts: Sequence[Tokens], lengths: Sequence[int]) -> list[int]:
    """The lengths by which sequences are batched flat: where one is about as long as the longest with its prompt, that.

    Batched by length, the two sides of a pair mostly part, and each computes the prompt. What is shorter by more than
    the prompt saves less by it than it costs in attention, which has padding.
    """
    longest: dict[tuple[int, ...], int] = {}
    keys = [tuple(prompt) for prompt in prompts]
    for key, length in zip(keys, lengths, strict=True):
        longest[key] = max(length, longest.get(key, 0))
    pairs = zip(keys, lengths, strict=True)
    return [longest[key] if longest[key] - length <= len(key) else length for key, length in pairs]


def _why_not_flat(
    model: Any, prompts: Sequence[Tokens], completions: Sequence[Tokens], lengths: Sequence[int], name: str
) -> str:
    """The same of a few sequences of middling length."""
    start = max(0, len(lengths) - TRIED) // 2
    some = sorted(range(len(lengths)), key=lengths.__getitem__)[start : start + TRIED]
    with using(name, "scoring"):
        return why_padded(model, [prompts[row] for row in some], [completions[row] for row in some], name)


def _bytes_per_token(model: Any) -> int:
    """What a token takes in a forward pass at most: a row of logits, and a layer's states, all fp32."""
    hidden = getattr(text_config(model.config), "hidden_size", 0)
    return 4 * (2 * (embeddings(model) or 0) + 32 * hidden)
