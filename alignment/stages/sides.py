"""The prompts of one side: a range of those that are trained on, and those that are held out."""

from pathlib import Path
from typing import Literal

import numpy as np
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


class Sides:
    """The side of each prompt, in some bytes a prompt."""

    def __init__(self, folder: Path) -> None:
        """Of the prompts of the stage's folder."""
        ids, train = [np.array([], "S1")], [np.array([], bool)]
        for batch in PROMPTS.batches(folder, ["prompt_id", "split"]):
            ids.append(np.array([prompt_id.encode() for prompt_id in batch["prompt_id"].to_pylist()]))
            train.append(pc.equal(batch["split"], "train").to_numpy())
        whole = np.concatenate(ids)
        order = np.argsort(whole)
        self._ids, self._train = whole[order], np.concatenate(train)[order]

    def of(self, prompt_id: str) -> Literal["train", "eval", ""]:
        """The side of a prompt; none where it is on neither."""
        wanted = prompt_id.encode()
        at = int(np.searchsorted(self._ids, wanted))
        if at == len(self._ids) or self._ids[at] != wanted:
            return ""
        return "train" if self._train[at] else "eval"
