"""What is kept of a run: its settings, what every gate reads, and what only the truth is made of; numbers, no text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignment.locks import alone
from benchmarks.gates.grid import Data, Run, Setting, hash_of

RESULTS = Path(__file__).parents[1] / "results" / "gates.parquet"


@dataclass(frozen=True)
class Row:
    """A run and its figures by name; one that does not apply is not there. `config` is a hash of its settings."""

    run: Run
    figures: dict[str, float] = field(default_factory=dict)
    config: str = ""

    def get(self, name: str) -> float:
        """A figure; nan where it is not there, so that nothing holds of it."""
        return self.figures.get(name, math.nan)


def flat(row: Row) -> dict[str, Any]:
    """A row as columns."""
    return {
        "data": row.run.data,
        "seed": row.run.seed,
        **vars(row.run.setting),
        "config": row.config,
        **row.figures,
    }


def row_of(columns: dict[str, Any]) -> Row:
    """The row of such columns; what is null is not there."""
    rest = dict(columns)
    data: Data = rest.pop("data")
    seed = rest.pop("seed")
    setting = Setting(**{name: rest.pop(name) for name in Setting.__dataclass_fields__})
    config = rest.pop("config")
    return Row(Run(data, seed, setting), {name: value for name, value in rest.items() if value is not None}, config)


def read(path: Path = RESULTS) -> list[Row]:
    """The rows of a file; none where there is no file yet."""
    return [row_of(columns) for columns in pq.read_table(path).to_pylist()] if path.exists() else []


def current(rows: Sequence[Row]) -> list[Row]:
    """The rows of today's settings; of what the runs share something may have changed since one was recorded."""
    return [row for row in rows if row.config == hash_of(row.run)]


def write(rows: Sequence[Row], path: Path = RESULTS) -> None:
    """Write rows, in the order of their names, to a temporary file that is then renamed."""
    several = [flat(row) for row in sorted(rows, key=lambda row: row.run.name)]
    names = list(dict.fromkeys(name for columns in several for name in columns))
    draft = path.with_suffix(".draft")
    pq.write_table(pa.table({name: [columns.get(name) for columns in several] for name in names}), draft)
    draft.rename(path)


def add(row: Row, path: Path = RESULTS) -> None:
    """Record one more run, or a run once more; several processes may do so at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.with_suffix(".lock"), f"{path.name} is being written by another process"):
        others = [other for other in read(path) if other.run != row.run]
        write([*others, row], path)
