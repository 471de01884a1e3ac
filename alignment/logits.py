"""The logits of a sequence classifier for texts, as token ids: batched by length, and checked by single texts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignment.conventions import text_config
from alignment.models import Loaded, using
from alignment.selfcheck import SelfCheck


@torch.inference_mode()
def class_logits(
    loaded: Loaded,
    ids: Sequence[Sequence[int]],
    *,
    batch_size: int,
    types: Sequence[Sequence[int]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """The logits [N, classes] of N texts, given as token ids and, where the tokenizer makes them, token types.

    Raises ModelError where the model cannot be run, and SelfCheckError where a batch's logits are not those of its
    texts one by one.
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
        with padding_named(loaded.model.config, pad_id):
            logits: NDArray[np.float64] = loaded.model(**batch).logits.double().cpu().numpy()
        return logits

    check = SelfCheck("reward", loaded.name, loaded.model)
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    found: NDArray[np.float64] = np.empty((len(ids), loaded.model.config.num_labels))
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        with using(loaded.name, "reward"):
            found[chunk] = forward(chunk)
        check.logits(
            found[chunk], partial(_alone, forward, chunk), padded=len({len(ids[index]) for index in chunk}) > 1
        )
        if progress is not None:
            progress(min(start + batch_size, len(order)), len(order))
    return found


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
    width = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[*row, *([pad_id] * (width - len(row)))] for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
    }


def _alone(
    forward: Callable[[Sequence[int]], NDArray[np.float64]], chunk: Sequence[int], row: int
) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = forward([chunk[row]])[0]
    return logits
