"""The logits of a sequence classifier for texts, as token ids: batched by length, and checked by single texts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignment.batching import batch_tokens as tokens_at_once
from alignment.batching import in_batches
from alignment.conventions import text_config
from alignment.models import Loaded, using
from alignment.selfcheck import SelfCheck

CPU_STATES = 2**18
"""Tokens times width that run together on a CPU, measured at widths of 64, 256 and 768: more leaves its cache."""

CPU_LEAST = 512
"""Tokens, with which a matrix product is as fast as it gets."""

STATES = 32
"""States of the model's width that a token takes in a layer, with those of its feed-forward part and attention."""

FP32_BYTES = 4
USUAL_WIDTH = 768
"""That of a model whose config does not name it."""


@torch.inference_mode()
def class_logits(
    loaded: Loaded,
    ids: Sequence[Sequence[int]],
    *,
    batch_tokens: int = 0,
    types: Sequence[Sequence[int]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """The logits [N, classes] of N texts, given as token ids and, where the tokenizer makes them, token types.

    A batch has at most `batch_tokens` tokens with its padding, as many as the machine takes where that is 0. Raises
    ModelError where the model cannot be run, and SelfCheckError where a batch's logits are not those of its texts one
    by one.
    """

    def forward(rows: Sequence[int]) -> NDArray[np.float64]:
        given = [ids[row] or [loaded.pad_id] for row in rows]
        pad_id = loaded.pad_id
        if not loaded.conventions.names_padding:  # what is no text's last token hides none
            last = {row[-1] for row in given}
            pad_id = next(token for token in range(len(last) + 1) if token not in last)
        batch = pad(given, pad_id)
        if types is not None:
            batch["token_type_ids"] = pad([types[row] or [0] for row in rows], 0)["input_ids"]
        batch = {name: tensor.to(loaded.model.device) for name, tensor in batch.items()}
        with using(loaded.name, "reward"), padding_named(loaded.model.config, pad_id):
            logits: NDArray[np.float64] = loaded.model(**batch).logits.double().cpu().numpy()
        return logits

    check = SelfCheck("reward", loaded.name, loaded.model)
    lengths = [max(1, len(row)) for row in ids]
    found: NDArray[np.float64] = np.empty((len(ids), loaded.model.config.num_labels))

    def score(rows: list[int]) -> None:
        found[rows] = forward(rows)
        check.logits(found[rows], partial(_alone, forward, rows), padded=len({lengths[row] for row in rows}) > 1)

    tokens = _tokens_at_once(loaded.model, batch_tokens)
    in_batches(lengths, tokens, score, name=loaded.name, field="reward.batch_tokens", progress=progress)
    return found


def _tokens_at_once(model: Any, given: int) -> int:
    """As `given`, or where that is 0: on a GPU what fits, on a CPU what keeps a layer's widest states in its cache."""
    hidden = getattr(text_config(model.config), "hidden_size", USUAL_WIDTH)
    if not given and model.device.type == "cpu":
        return max(CPU_LEAST, CPU_STATES // hidden)
    return tokens_at_once(model, given, FP32_BYTES * STATES * hidden)


@contextmanager
def padding_named(config: Any, pad_id: int) -> Iterator[None]:
    """Have a classifier's config name the token that is padded with: a decoder finds a text's end by it."""
    configs = list({id(each): each for each in (config, text_config(config))}.values())
    before = [getattr(each, "pad_token_id", None) for each in configs]
    for each in configs:
        each.pad_token_id = pad_id
    try:
        yield
    finally:
        for each, named in zip(configs, before, strict=True):
            each.pad_token_id = named


def pad(ids: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Token ids padded on the right, and the mask of those that are not padding: both [N, longest]."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(mask.shape, pad_id, np.int64)
    padded[mask] = np.fromiter(chain.from_iterable(ids), np.int64, lengths.sum())
    return {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def _alone(
    forward: Callable[[Sequence[int]], NDArray[np.float64]], chunk: Sequence[int], row: int
) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = forward([chunk[row]])[0]
    return logits
