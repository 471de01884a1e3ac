"""A stage in parts: an index of them in place of a copy of their rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from alignment.device import on_cpu
from alignment.stages.files import PARTS
from alignment.stages.job import Counts, Job
from alignment.stages.row_hash import ROWS, Hashed, hash_rows, rows_of, write_rows
from alignment.stages.shortage import told_of
from alignment.stages.stage import Stage
from alignment.stages.store import StageRef


def fill(stage: Stage, job: Job) -> Counts:
    """Fill a job's folder with a stage, with one part of it, or with the list of its parts, where these are given.

    A stage that takes no GPU slot uses no GPU, though there be one.
    """
    is_placed = bool(stage.slots(job.config))
    with told_of(stage.name, job.config, on_cpu=not is_placed), nullcontext() if is_placed else on_cpu():
        if stage.parts is None:
            return stage.body(job)
        if job.parts:
            index_parts(job.out, job.parts)
            return stage.body(job)
        counts = stage.parts.body(job)
        if not (job.out / ROWS).exists():  # a part may know its rows by less than all of their values
            hash_rows(job.out)
        return counts


def index_parts(out: Path, parts: Sequence[Path]) -> None:
    """Write into the folder of a stage which parts it has, in order, and the rows of all of them.

    A part is named by its folder's place in the store, two folders below its root as the stage itself. Where the cuts
    are is nothing that the content of the stage hangs on, so `alignment.stages.store` leaves that file out of it.
    """
    listed = [rows_of(part) for part in parts]
    index = [
        {"folder": "/".join(part.parts[-2:]), "rows": {file: hashed.rows for file, hashed in tables.items()}}
        for part, tables in zip(parts, listed, strict=True)
    ]
    (out / PARTS).write_text(json.dumps(index) + "\n", encoding="utf-8")
    write_rows(out, {file: sum((tables[file] for tables in listed), Hashed()) for file in listed[0]})


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
