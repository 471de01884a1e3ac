"""How sequences of unlike lengths are laid out as a model's input: flat, one behind another, or padded into rows.

Pure, on the CPU and from lengths alone; nothing here knows a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Tokens = Sequence[int]
Integers = NDArray[np.int64]

WORTH, WORTH_TOKENS = 0.1, 64
"""What a second forward pass has to save of a batch's tokens with their padding: a share, and a number."""


@dataclass(frozen=True)
class Layout:
    """R sequences, each a prompt and a completion, as tensors; C is the number of completion tokens in all.

    Flat, `ids` are [1, T], and a prompt that several sequences begin with is there once. `positions` [1, T] number each
    token within its sequence. `gather` [R, L] is where each sequence's tokens are, any place behind its end; `first`
    [T] is where each token is first in those rows, counted row by row, and `again` [A] where tokens `again_of` [A] are
    once more.

    Padded on the right, `ids` are [R, L], and these five are empty. Every architecture numbers such rows from 0, and
    causal attention never looks at the padding.
    """

    ids: Tensor
    positions: Tensor
    gather: Tensor
    first: Tensor
    again: Tensor
    again_of: Tensor
    predicts: Tensor
    """[C]: the places, counted through `ids`, whose predictions are the completion tokens."""
    targets: Tensor
    """[C]: those tokens, sequence by sequence."""
    rows: Tensor
    """[C]: the sequence of each."""
    lengths: Tensor
    """[R]: how many each sequence has; none, where it lies in another layout of the same batch."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Layout":
        """The layout among tensors by name, which may be more."""
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})

    def tensors(self) -> dict[str, Tensor]:
        """What it consists of, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device) -> "Layout":
        """The same layout on another device."""
        return Layout(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    @property
    def is_flat(self) -> bool:
        """Whether there is no padding."""
        return self.gather.numel() > 0


def lay_padded(prompts: Sequence[Tokens], completions: Sequence[Tokens], pad_id: int) -> Layout:
    """R sequences as rows [R, L]; raises ValueError where a prompt holds no token."""
    before, after = _lengths(prompts, completions)
    ends = before + after
    ids = np.full((len(ends), int(ends.max())), pad_id, dtype=np.int64)
    ids[np.arange(ids.shape[1]) < ends[:, None]] = _joined(
        [part for row in zip(prompts, completions, strict=True) for part in row]
    )
    rows, within = _runs(after)
    places = rows * ids.shape[1] + before[rows] + within
    none = np.empty(0, dtype=np.int64)
    return _layout(ids, none, none, none, none, none, places - 1, ids.ravel()[places], rows, after)


def lay_in_buckets(prompts: Sequence[Tokens], completions: Sequence[Tokens], pad_id: int) -> list[Layout]:
    """R sequences as padded rows of one layout, or of two of like lengths where that is worth it; both tell of all R.

    Raises ValueError where a prompt holds no token.
    """
    before, after = _lengths(prompts, completions)
    found: list[Layout] = []
    for bucket in _buckets(before + after):
        layout = lay_padded([prompts[row] for row in bucket], [completions[row] for row in bucket], pad_id)
        rows = torch.from_numpy(bucket)
        lengths = torch.zeros(len(before), dtype=torch.long).index_copy(0, rows, layout.lengths)
        found.append(replace(layout, rows=rows[layout.rows], lengths=lengths))
    return found


def _buckets(lengths: Integers) -> list[Integers]:
    """All rows in their order, or the shorter ones and the longer ones."""
    order = np.argsort(lengths, kind="stable")
    shorter = np.arange(1, len(order))
    saved = shorter * (lengths.max() - lengths[order][:-1])  # tokens, with so many rows in the first bucket
    if not len(saved) or saved.max() < max(WORTH * len(order) * lengths.max(), WORTH_TOKENS):
        return [np.arange(len(order))]
    cut = int(saved.argmax()) + 1
    return [np.sort(order[:cut]), np.sort(order[cut:])]


def lay_flat(prompts: Sequence[Tokens], completions: Sequence[Tokens]) -> Layout:
    """R sequences one behind another [1, T], each distinct prompt once and before all completions.

    Raises ValueError where a prompt holds no token.
    """
    before, after = _lengths(prompts, completions)
    numbers: dict[tuple[int, ...], int] = {}
    prompt_of = np.array([numbers.setdefault(tuple(prompt), len(numbers)) for prompt in prompts], dtype=np.int64)
    sizes = np.array([len(prompt) for prompt in numbers], dtype=np.int64)
    shared = int(sizes.sum())
    starts = _starts(sizes)[prompt_of]  # of each sequence's prompt
    goes_on = shared + _starts(after)  # and of its completion
    ids = _joined([*numbers, *completions])
    rows, within = _runs(after)
    _, of_prompts = _runs(sizes)

    column = np.arange(int((before + after).max()))
    in_prompt = column < before[:, None]
    gather = np.where(in_prompt, starts[:, None] + column, goes_on[:, None] + column - before[:, None])
    inside = column < (before + after)[:, None]
    gather[~inside] = 0
    places = np.flatnonzero(inside)  # in the rows, in order
    tokens = gather.ravel()[places]
    first = np.full(len(ids), -1, dtype=np.int64)
    first[tokens[::-1]] = places[::-1]
    repeated = first[tokens] != places
    return _layout(
        ids[None],
        np.concatenate([of_prompts, before[rows] + within])[None],
        gather,
        first,
        places[repeated],
        tokens[repeated],
        np.where(within > 0, goes_on[rows] + within - 1, (starts + before)[rows] - 1),
        ids[shared:],
        rows,
        after,
    )


def _lengths(prompts: Sequence[Tokens], completions: Sequence[Tokens]) -> tuple[Integers, Integers]:
    pairs = list(zip(prompts, completions, strict=True))
    before = np.array([len(prompt) for prompt, _ in pairs], dtype=np.int64)
    if not before.all():
        row = int(np.argmin(before))
        raise ValueError(f"sequence {row} has no prompt token: the first completion token could not be predicted")
    return before, np.array([len(completion) for _, completion in pairs], dtype=np.int64)


def _joined(parts: Sequence[Tokens]) -> Integers:
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])


def _starts(lengths: Integers) -> Integers:
    """Where each of some runs that follow each other begins."""
    return np.cumsum(lengths) - lengths


def _runs(lengths: Integers) -> tuple[Integers, Integers]:
    """Of each member of runs of these lengths: which run it is in, and its number there."""
    run = np.repeat(np.arange(len(lengths)), lengths)
    return run, np.arange(len(run)) - _starts(lengths)[run]


def _layout(*arrays: Integers) -> Layout:
    return Layout(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
