"""What a part of the pairs leaves for the judgement of all of them: counts that add up, and hashes in columns."""

import json
from array import array
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from alignment.stages.store import write_json
from expectations import arrays

COUNTS, COLUMNS = "tally.json", "tally.npz"
"""In the folder of a part."""

SIDES = ("chosen", "rejected")
_KINDS = {"pair": "q", "prompt": "q", "content": "q"}
_KINDS |= {f"{side}{what}": kind for side in SIDES for what, kind in (("", "q"), ("_score", "d"), ("_tokens", "i"))}

Column = np.ndarray[Any, Any]


@dataclass
class Counts:
    """Of the pairs of a part, or of several together.

    `longer_twice` is twice the number of accepted pairs whose chosen completion has more tokens than the rejected one,
    ties counted half; `shared` are the held-out prompts that accepted pairs have, and `has` is what some sound pair
    has, of "scores" and "gap". `failed` are the failing rows of each row check, `reasons` and `faults` those of
    quarantined pairs, in the order in which they were met, and `unsuccessful` the checks that Great Expectations calls
    failed.
    """

    accepted: int = 0
    quarantined: int = 0
    longer_twice: int = 0
    shared: set[str] = field(default_factory=set)
    has: set[str] = field(default_factory=set)
    unsuccessful: set[str] = field(default_factory=set)
    failed: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def pairs(self) -> int:
        """All of them."""
        return self.accepted + self.quarantined

    def add(self, others: "Counts") -> None:
        """Take the pairs that follow."""
        for each in fields(self):
            ours, theirs = getattr(self, each.name), getattr(others, each.name)
            if isinstance(ours, int):
                setattr(self, each.name, ours + theirs)
            else:
                ours.update(theirs)

    def told(self) -> dict[str, Any]:
        """As JSON; counters as lists, since their order says which came first."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Counts":
        """Those that `told` has told."""
        blank = cls()
        for name, value in told.items():
            if isinstance(getattr(blank, name), Counter):
                value = Counter(dict(value))
            setattr(blank, name, set(value) if isinstance(getattr(blank, name), set) else value)
        return blank


def _plain(value: Any) -> Any:
    if isinstance(value, Counter):
        return list(value.items())
    return sorted(value) if isinstance(value, set) else value


def together(parts: "Iterable[Left]") -> Counts:
    """The counts of all parts."""
    total = Counts()
    for part in parts:
        total.add(part.counts)
    return total


class Left(Protocol):
    """What a part has left, in memory or in its folder."""

    counts: Counts

    def column(self, name: str) -> Column:
        """A column: `pair` of all pairs that have an id, the others of accepted ones.

        `pair`, `prompt` and `content` (prompt, chosen and rejected together) are hashes of 64 bits, int64. So are
        `chosen` and `rejected`, of a text and its tokens' number, where it has a score: `chosen_score` in units of the
        reward, float64, with `chosen_tokens`, int32; and the same of the rejected side.
        """


class Tally:
    """What is kept of the pairs of a part while they come: about 64 bytes of each, however long its texts are.

    Ids, prompts, pairs and texts are told apart by hashes of 64 bits (`arrays.hashes`): of a million pairs, two
    different ones have one hash once in ten million sets, and then a fraction is off by one in a million.
    """

    def __init__(self, eval_prompt_ids: Collection[str]) -> None:
        """`eval_prompt_ids` are the prompts held out for the evaluation."""
        self.counts = Counts()
        self._held_out = pa.array(sorted(eval_prompt_ids), pa.string())
        self._columns = {name: array(kind) for name, kind in _KINDS.items()}

    def take(self, pairs: pd.DataFrame) -> None:
        """Take pairs in the set's order, accepted or not: their ids."""
        self._keep(pair=arrays.hashes(arrays.texts(pairs["pair_id"]).drop_null()))

    def accept(self, accepted: pd.DataFrame) -> None:
        """Take the accepted ones among them."""
        if accepted.empty:
            return
        counts = self.counts
        counts.accepted += len(accepted)
        prompt_ids = pa.array(accepted["prompt_id"].array).cast(pa.string())
        counts.shared.update(pc.unique(prompt_ids.filter(pc.is_in(prompt_ids, self._held_out))).to_pylist())
        chosen, rejected = (accepted[f"{side}_tokens"].to_numpy(np.float64) for side in SIDES)
        counts.longer_twice += int(2 * (chosen > rejected).sum() + (chosen == rejected).sum())
        prompts, *completions = (
            arrays.hashes(arrays.as_bytes(arrays.ids(accepted[name])))
            for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        )
        self._keep(prompt=prompts, content=arrays.mixed(prompts, *completions))
        for side, lengths in zip(SIDES, (chosen, rejected), strict=True):
            scores = accepted[f"{side}_score"].to_numpy(np.float64, na_value=np.nan)
            scored = ~np.isnan(scores)
            if scored.any():
                tokens = lengths[scored].astype(np.int64)
                keys = arrays.mixed(arrays.hashes(arrays.texts(accepted[side][scored])), tokens)
                self._keep(**{side: keys, f"{side}_score": scores[scored], f"{side}_tokens": tokens.astype(np.int32)})

    def column(self, name: str) -> Column:
        """See `Left.column`."""
        return np.asarray(self._columns[name])

    def save(self, folder: Path) -> None:
        """Write it into the folder of the part."""
        write_json(folder / COUNTS, self.counts.told())
        columns: dict[str, Any] = {name: self.column(name) for name in _KINDS}
        np.savez(folder / COLUMNS, **columns)

    def _keep(self, **columns: Column) -> None:
        for name, values in columns.items():
            self._columns[name].frombytes(values.tobytes())


class SavedTally:
    """What a part has left in its folder, read a column at a time."""

    def __init__(self, folder: Path) -> None:
        """Reads the counts."""
        self.counts = Counts.of(json.loads((folder / COUNTS).read_text(encoding="utf-8")))
        self._file = folder / COLUMNS

    def column(self, name: str) -> Column:
        """See `Left.column`."""
        with np.load(self._file) as columns:
            found: Column = columns[name]
        return found
