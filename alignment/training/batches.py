"""Which rows each optimiser step is made of, and which of them each process computes in one batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

ROWS = "row_count"
"""In a batch: the number of its rows; 0 where it stands in for none, as another process has one more."""


class Shares(Sampler[list[int]]):
    """The batches of one process: each epoch is a permutation, cut into steps, and each step is dealt out.

    A step has `step` rows, the last of an epoch what is left, however many processes there are: so they are the same
    rows. They are dealt in equal parts to all batches of all processes, of at most `size` rows. Where there are fewer
    rows than batches, some are empty.
    """

    def __init__(self, rows: int, *, step: int, size: int, seed: int, rank: int, processes: int) -> None:
        """An epoch is drawn with the seed and its number."""
        self.rows, self.step, self.size, self.seed = rows, step, size, seed
        self.rank, self.processes = rank, processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is gone through next."""
        self.epoch = epoch

    def batches(self, rows: int) -> int:
        """In how many batches each process computes a step of so many rows."""
        return accumulation(rows, self.size, self.processes)

    def __len__(self) -> int:
        """The batches of an epoch."""
        whole, rest = divmod(self.rows, self.step)
        return whole * self.batches(self.step) + self.batches(rest)

    def __iter__(self) -> Iterator[list[int]]:
        """The numbers of the rows of each batch."""
        draws = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(self.rows, generator=draws).tolist()
        for start in range(0, self.rows, self.step):
            rows = order[start : start + self.step]
            dealt = np.array_split(rows, self.batches(len(rows)) * self.processes)
            yield from (part.tolist() for part in dealt[self.rank :: self.processes])


def accumulation(step: int, size: int, processes: int) -> int:
    """How many batches of at most `size` rows each process computes for a step of `step` rows."""
    return -(-step // (size * processes))


def rows_of(steps: int, *, rows: int, step: int) -> int:
    """How many rows the first steps of a training have, of epochs that each end with what is left."""
    epochs, since = divmod(steps, -(-rows // step))
    return epochs * rows + since * step


class Collated:
    """Makes batches of rows, each with the number of its rows; one that stands in for none has any row."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]], rows: Sequence[Any]) -> None:
        """`collate` makes a batch of one row or more."""
        self.collate, self.rows = collate, rows

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        """The batch of these rows."""
        return self.collate(rows or [self.rows[0]]) | {ROWS: len(rows)}
