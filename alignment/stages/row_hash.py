"""One hash of the rows of a stage in parts, however they are cut.

The rows of a file are a list, and the hash of a list is made of those of its pieces: of values h1, h2, ... it is the
polynomial h1 X^(n-1) + ... + hn modulo a prime, where each h is a row's SHA-256 (Karp and Rabin 1987). So a worker
hashes the rows of its own part, and nobody reads all of them. It finds what has changed, and is no signature.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

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

    @classmethod
    def told_by(cls, rows: int, value: bytes) -> "Hashed":
        """So many rows of which a value says all: the same rows have it wherever the parts are cut, and no others."""
        return cls() if not rows else cls(rows, int.from_bytes(hashlib.sha256(value).digest()) % PRIME)

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


def hash_rows(folder: Path) -> None:
    """Write into the folder of a part how many rows each of its tables has, and their hash."""
    found: dict[str, Hashed] = {}
    for path in sorted(folder.glob("*.parquet")):
        found[path.name] = Hashed()
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                found[path.name] = found[path.name].taking(file.read_row_group(number))
    write_rows(folder, found)


def rows_of(folder: Path) -> dict[str, Hashed]:
    """The rows of each table of a part."""
    tables = json.loads((folder / ROWS).read_text(encoding="utf-8"))
    return {file: Hashed(table["rows"], int(table["hash"], 16)) for file, table in tables.items()}


def write_rows(folder: Path, tables: Mapping[str, Hashed]) -> None:
    """Write them, into the folder of a part or of a whole stage."""
    told = {file: {"rows": hashed.rows, "hash": f"{hashed.value:x}"} for file, hashed in tables.items()}
    (folder / ROWS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
