"""What a stage is given to work with, and the rows that it reads and writes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignment.config import AlignConfig

Counts = dict[str, int]
Rows = list[dict[str, Any]]


def _silent(done: int, total: int) -> None:
    """The progress report of someone who does not look."""


@dataclass(frozen=True)
class Job:
    """What a stage works with: config, its parents' folders, its own, one that survives a crash, and reports.

    `progress` takes (done, total) and raises Interrupted to stop the work; `on_row` takes each row of training metrics.
    `options` hold what a single call is told beside the config, such as which prompts a shard of samples is for.
    """

    config: AlignConfig
    inputs: Mapping[str, Path]
    out: Path
    work: Path
    progress: Callable[[int, int], None] = _silent
    on_row: Callable[[dict[str, float]], None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def read_rows(path: Path, columns: list[str] | None = None) -> Rows:
    """A Parquet file as a list of dicts."""
    rows: Rows = pq.read_table(path, columns=columns).to_pylist()
    return rows


def write_rows(path: Path, rows: Rows) -> None:
    """A list of dicts as a Parquet file."""
    pq.write_table(pa.Table.from_pylist(rows), path)


def count_finished(rows: Rows) -> Counts:
    """How many samples there are, and how many of them end by EOS or for want of room."""
    finished = sum(bool(row["finished"]) for row in rows)
    return {"samples": len(rows), "finished": finished, "truncated": len(rows) - finished}
