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
    """What a stage works with: config, its parents' folders, its own, one that survives a crash, and reports."""

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
