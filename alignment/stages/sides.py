"""The prompts of one side: a range of those that are trained on, and those that are held out."""

from pathlib import Path

import pyarrow.compute as pc

from alignment.rows import PROMPTS, Prompt


def training(folder: Path, first: int, last: int) -> list[Prompt]:
    """Prompts `first` to `last` (excluded) of those that are trained on, which come before all others."""
    rows = [row for batch in PROMPTS.batches(folder, start=first, stop=last) for row in batch.to_pylist()]
    assert all(row["split"] == "train" for row in rows), "the stage `prompts` writes the training side first"
    return rows


def held_out(folder: Path) -> list[Prompt]:
    """The prompts that are held out, in order."""
    sides = (batch.filter(pc.equal(batch["split"], "eval")) for batch in PROMPTS.batches(folder))
    return [row for side in sides for row in side.to_pylist()]


def count_held_out(folder: Path) -> int:
    """How many they are."""
    return sum(pc.sum(pc.equal(batch["split"], "eval")).as_py() for batch in PROMPTS.batches(folder, ["split"]))
