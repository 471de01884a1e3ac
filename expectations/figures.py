"""The figures of a set of pairs that the set checks bound, from what its parts have left (`expectations.tally`)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from expectations.arrays import Bools, Ints
from expectations.tally import SIDES, Counts, Left, together

Floats = np.ndarray[Any, np.dtype[np.float64]]

BLOCK = 2**16
"""Texts whose moments are computed together, counted from the first of the set, so that the cuts decide no sum."""


def figures(parts: Sequence[Left]) -> dict[str, float]:
    """Figures of the accepted pairs of all parts, in order, by name; all finite, and 0 where a figure is undefined.

    Fractions lie in 0..1 and are of the accepted pairs, but for `quarantined_fraction`, which is of all; counts are
    whole numbers; `length_correlation` lies in -1..1. The parts' columns are read one by one, so 8 bytes of each pair
    are in memory, or of each text.

    `duplicate_fraction`: of the pairs that repeat the token ids of prompt, chosen and rejected of an earlier one.
    `chosen_longer_fraction`: P(the chosen completion has more tokens than the rejected one), ties counted half.
    `length_correlation`: Pearson's r of score and completion tokens over the distinct texts of the pairs, 0 where
    either is constant. Texts without a score are left out, and a text that several pairs share counts once for each
    length in tokens that it was sampled with, with the score that it had first, chosen ones before rejected ones.
    """
    counts: Counts = together(parts)
    pairs = counts.accepted
    return {
        "accepted_pairs": float(pairs),
        "quarantined_pairs": float(counts.quarantined),
        "quarantined_fraction": counts.quarantined / max(counts.pairs, 1),
        "duplicate_fraction": (pairs - _distinct(parts, "content")) / max(pairs, 1),
        "chosen_longer_fraction": counts.longer_twice / 2 / max(pairs, 1),
        "length_correlation": _pearson(_in_blocks(_texts(parts), BLOCK)),
        "shared_prompts": float(len(counts.shared)),
        "distinct_prompts": float(_distinct(parts, "prompt")),
    }


def repeated(parts: Sequence[Left], *columns: str) -> Ints:
    """The hashes that come more than once in some columns of all parts together, sorted."""
    values = _sorted(parts, *columns)
    return np.unique(values[1:][values[1:] == values[:-1]])


def _distinct(parts: Sequence[Left], column: str) -> int:
    values = _sorted(parts, column)
    return int((values[1:] != values[:-1]).sum()) + bool(len(values))


def _sorted(parts: Sequence[Left], *columns: str) -> Ints:
    found, size = np.empty(len(columns) * sum(part.counts.pairs for part in parts), np.int64), 0
    for name in columns:
        for part in parts:
            values = part.column(name)
            found[size : size + len(values)] = values
            size += len(values)
    found = found[:size]
    found.sort()
    return found


def _texts(parts: Sequence[Left]) -> Iterator[Floats]:
    """Score and tokens of each distinct text where it comes first, chosen ones before rejected ones, shape [2, texts].

    Only texts that come more than once have to be remembered.
    """
    again = repeated(parts, *SIDES)
    seen = np.zeros(len(again), bool)
    for side in SIDES:
        for part in parts:
            first = _first(part.column(side), again, seen)
            scores, tokens = (part.column(f"{side}_{what}")[first] for what in ("score", "tokens"))
            yield np.stack([scores, tokens.astype(np.float64)])


def _first(keys: Ints, again: Ints, seen: Bools) -> Bools:
    """Which of some keys come for the first time; `seen` says which of those that come `again` had, and is updated."""
    first = np.ones(len(keys), bool)
    rows = np.flatnonzero(np.isin(keys, again))
    of = np.searchsorted(again, keys[rows])
    first[rows] = False
    numbers, at = np.unique(of, return_index=True)
    first[rows[at[~seen[numbers]]]] = True
    seen[numbers] = True
    return first


def _in_blocks(pieces: Iterable[Floats], size: int) -> Iterator[Floats]:
    """Pieces of shape [2, any] as pieces of shape [2, size]; the last one may be shorter."""
    waiting: Floats = np.empty((2, 0))
    for piece in pieces:
        waiting = np.concatenate([waiting, piece], axis=1)
        whole = waiting.shape[1] // size * size
        for at in range(0, whole, size):
            yield waiting[:, at : at + size]
        waiting = waiting[:, whole:]
    if waiting.shape[1]:
        yield waiting


def _pearson(blocks: Iterable[Floats]) -> float:
    """Pearson's r of pairs of numbers in blocks of shape [2, pairs], whose moments are put together.

    That is formula 2.1 of Chan, Golub and LeVeque (1983), for the product of the two as for their squares.
    """
    count, mean, moments, ends = 0, np.zeros(2), np.zeros((2, 2)), []
    for block in blocks:
        here = block.shape[1]
        means = np.array([row.mean() for row in block])
        x, y = (row - its for row, its in zip(block, means, strict=True))
        shift = means - mean
        moments += [[(x * x).sum(), (x * y).sum()], [(x * y).sum(), (y * y).sum()]]
        moments += np.outer(shift, shift) * (count * here / (count + here))
        mean += shift * (here / (count + here))
        count += here
        ends += [block.min(axis=1), block.max(axis=1)]
    if not count or (np.min(ends, axis=0) == np.max(ends, axis=0)).any():
        return 0.0
    found = moments[0, 1] / np.sqrt(moments[0, 0]) / np.sqrt(moments[1, 1])
    return float(np.clip(np.nan_to_num(found), -1.0, 1.0))
