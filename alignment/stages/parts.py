"""A stage in parts: an index of them in place of a copy of their rows, and one hash of the rows however they are cut.

The rows of a file are a list, and the hash of a list is made of those of its pieces: of values h1, h2, ... it is the
polynomial h1 X^(n-1) + ... + hn modulo a prime, where each h is a row's SHA-256 (Karp and Rabin 1987). So a worker
hashes the rows of its own part, and nobody reads all of them. It finds what has changed, and is no signature.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignment.stages.files import PARTS
from alignment.stages.job import Counts, Job
from alignment.stages.shortage import told_of
from alignment.stages.stage import Stage
from alignment.stages.store import StageRef

ROWS = "rows.json"
"""In the folder of a part, and of a stage in parts: the rows of each of its tables, and their hash."""

PRIME = 2**256 - 189
BASE = int.from_bytes(hashlib.sha256(b"rows").digest())


@dataclass(frozen=True)
class Hashed:
    """So many rows, and their hash: 0 of none."""

    rows: int = 0
    value: int = 0

    def __add__(self, other: "Hashed") -> "Hashed":
        """These rows, and then the others."""
        return Hashed(self.rows + other.rows, (self.value * pow(BASE, other.rows, PRIME) + other.value) % PRIME)

    def taking(self, batch: pa.Table) -> "Hashed":
        """These rows, and then those of a batch: the values of each, under their columns' names and types."""
        seed = hashlib.sha256(_schema(batch.schema))
        encode, value = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode, self.value
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            of_row = seed.copy()
            of_row.update(encode(row).encode())
            value = (value * BASE + int.from_bytes(of_row.digest())) % PRIME
        return Hashed(self.rows + len(batch), value)


def _schema(schema: pa.Schema) -> bytes:
    return "".join(f"{field.name} {field.type}\n" for field in schema).encode()


def fill(stage: Stage, job: Job) -> Counts:
    """Fill a job's folder with a stage, with one part of it, or with the list of its parts, where these are given."""
    with told_of(stage.name, job.config):
        if stage.parts is None:
            return stage.body(job)
        if job.parts:
            index_parts(job.out, job.parts)
            return stage.body(job)
        counts = stage.parts.body(job)
        hash_rows(job.out)
        return counts


def hash_rows(folder: Path) -> None:
    """Write into the folder of a part how many rows each of its tables has, and their hash."""
    found: dict[str, Hashed] = {}
    for path in sorted(folder.glob("*.parquet")):
        found[path.name] = Hashed()
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                found[path.name] = found[path.name].taking(file.read_row_group(number))
    _write_rows(folder, found)


def index_parts(out: Path, parts: Sequence[Path]) -> None:
    """Write into the folder of a stage which parts it has, in order, and the rows of all of them.

    A part is named by its folder's place in the store, two folders below its root as the stage itself. Where the cuts
    are is nothing that the content of the stage hangs on, so `alignment.stages.store` leaves that file out of it.
    """
    listed = [_rows(part) for part in parts]
    index = [
        {"folder": "/".join(part.parts[-2:]), "rows": {file: hashed.rows for file, hashed in tables.items()}}
        for part, tables in zip(parts, listed, strict=True)
    ]
    (out / PARTS).write_text(json.dumps(index) + "\n", encoding="utf-8")
    _write_rows(out, {file: sum((tables[file] for tables in listed), Hashed()) for file in listed[0]})


def parts_of(folder: Path) -> list[str]:
    """Where the parts of a stage are, as in `samples-parts/KEY-0-128` below the store's root; none of a whole one."""
    if not (folder / PARTS).exists():
        return []
    return [part["folder"] for part in json.loads((folder / PARTS).read_text(encoding="utf-8"))]


def summed(counts: Iterable[Mapping[str, int]]) -> Counts:
    """The counts of all parts together."""
    total: Counts = {}
    for each in counts:
        for name, value in each.items():
            total[name] = total.get(name, 0) + value
    return total


def with_parts(made_of: dict[str, Any], parts: Sequence[StageRef]) -> dict[str, Any]:
    """The lineage of a stage whose parts are in the store by themselves: they are parents too, and kept like them."""
    return made_of | {"parents": made_of["parents"] | {f"{part.stage}/{part.key}": part.digest for part in parts}}


def _rows(folder: Path) -> dict[str, Hashed]:
    tables = json.loads((folder / ROWS).read_text(encoding="utf-8"))
    return {file: Hashed(table["rows"], int(table["hash"], 16)) for file, table in tables.items()}


def _write_rows(folder: Path, tables: Mapping[str, Hashed]) -> None:
    told = {file: {"rows": hashed.rows, "hash": f"{hashed.value:x}"} for file, hashed in tables.items()}
    (folder / ROWS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
