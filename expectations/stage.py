"""Stage `validation`: each pair accepted, or quarantined with the names of the checks that it broke."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from alignment.kinds import EXPECTATIONS
from alignment.parquet import GROUP_ROWS, Table
from alignment.rows import ACCEPTED, CHECKS, PAIRS, PROMPTS, QUARANTINED
from alignment.stages.job import Counts, Job
from alignment.stages.stage import stage
from alignment.stages.store import write_json

if TYPE_CHECKING:
    import pandas as pd

    from expectations.judging import Judge

SHARD = 16 * GROUP_ROWS
SHARD_BYTES = 2**28
"""How many pairs are in memory at once: enough that Great Expectations' 0.1 s a shard are little."""


@stage(
    title="validate pairs",
    needs=("prompts", "pairs"),
    reads=lambda c: c.validation.model_dump(),
    makes=lambda _: "accepted and quarantined pairs",
    uses=lambda _: [(EXPECTATIONS, name) for name in EXPECTATIONS.names()],
    libraries=("great_expectations", "pandas", "numpy"),
)
def validation(job: Job) -> Counts:
    """Accepted and quarantined pairs, and the result of each check; a failed set check is recorded, not raised here."""
    from expectations.judging import Judge
    from expectations.runner import none_given

    pairs = job.inputs["pairs"]
    total = PAIRS.count(pairs)
    if not total:
        raise none_given()
    _require_unique(pairs)
    judge = Judge(job.config.validation, _held_out(job.inputs["prompts"]), partial(_read, PAIRS, pairs))
    _split(job, judge)
    pa.default_memory_pool().release_unused()
    found = judge.verdict(partial(_read, ACCEPTED, job.out))
    write_json(
        job.out / CHECKS,
        {
            "checks": [check.model_dump() for check in found.checks],
            "figures": found.figures,
            "problem": found.problem,
        },
    )
    left = int(found.figures["accepted_pairs"])
    return {"pairs": total, "accepted": left, "quarantined": total - left}


def _split(job: Job, judge: "Judge") -> None:
    """Write each pair to one of the two files, in the pairs' order."""
    from expectations.arrays import frame

    pairs, done = job.inputs["pairs"], 0
    with ACCEPTED.writer(job.out) as accepted, QUARANTINED.writer(job.out) as quarantined:
        for shard in _shards(pairs):
            split = judge.split(frame(shard))
            sound = pa.array(split.accepted)
            kept = shard if not split.broken else shard.filter(sound)
            judge.accept(frame(kept))
            accepted.append(kept)
            if split.broken:
                names = pa.array(split.broken, QUARANTINED.schema.field("broken").type)
                quarantined.append(shard.filter(pc.invert(sound)).append_column("broken", names))
            done += len(shard)
            job.progress(done, PAIRS.count(pairs))


def _shards(folder: Path) -> Iterator[pa.Table]:
    """The pairs in order, about `SHARD` or `SHARD_BYTES` at a time, each column in one piece."""
    waiting: list[pa.Table] = []
    for batch in PAIRS.batches(folder, rows=min(SHARD, GROUP_ROWS)):
        waiting.append(batch)
        if sum(map(len, waiting)) >= SHARD or sum(each.nbytes for each in waiting) >= SHARD_BYTES:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _read(table: Table[Any], folder: Path, names: Sequence[str] | None) -> "pd.DataFrame":
    """Those of some columns that a table has, or all, of all rows."""
    from expectations.arrays import frame

    columns = [name for name in table.schema.names if names is None or name in names]
    return frame(table.whole(folder, columns))


def _held_out(folder: Path) -> set[str]:
    batches = PROMPTS.batches(folder, ["prompt_id", "split"])
    return {
        prompt for batch in batches for prompt in batch.filter(pc.field("split") == "eval")["prompt_id"].to_pylist()
    }


def _require_unique(folder: Path) -> None:
    """Raise ValidationError where a pair id comes twice; hashes tell, and the ids themselves where two are equal."""
    import numpy as np

    from expectations.arrays import hashes, whole
    from expectations.runner import repeated

    ids = (batch["pair_id"].drop_null() for batch in PAIRS.batches(folder, ["pair_id"]))
    found = np.concatenate([hashes(whole(some)) for some in ids])
    if len(np.unique(found)) < len(found):
        column = _read(PAIRS, folder, ["pair_id"])["pair_id"].dropna()
        for pair_id in column[column.duplicated()]:
            raise repeated(pair_id)
