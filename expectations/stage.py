"""Stage `validation`: each pair accepted, or quarantined with the names of the checks that it broke, in parts."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from alignment.config import AlignConfig
from alignment.kinds import EXPECTATIONS
from alignment.parquet import GROUP_ROWS, Table
from alignment.rows import ACCEPTED, CHECKS, PAIRS, PROMPTS, QUARANTINED
from alignment.stages.job import Counts, Job
from alignment.stages.row_hash import Hashed, write_rows
from alignment.stages.stage import Parts, Refs, stage
from alignment.stages.store import write_json

if TYPE_CHECKING:
    import pandas as pd

    from expectations.judging import Judge, Split
    from expectations.tally import Left

PART = 64 * GROUP_ROWS
"""How many pairs are judged by one worker: some seconds or minutes of work, by the length of their texts."""

SHARD = 16 * GROUP_ROWS
SHARD_BYTES = 2**28
"""How many pairs are in memory at once: enough that Great Expectations' 0.1 s a shard are little."""


def ranges(config: AlignConfig, refs: Refs) -> list[tuple[int, int]]:
    """The pairs, first to last (excluded), whose rows are checked together, cut where a row group ends.

    All of them, if there is a check that compares rows.
    """
    pairs = refs["pairs"].counts["built"]
    if pairs > PART:
        from expectations.judging import compares_rows
    if pairs <= PART or compares_rows(config.validation):
        return [(0, pairs)]
    return [(first, min(first + PART, pairs)) for first in range(0, pairs, PART)]


def part(job: Job) -> Counts:
    """The pairs of one range, accepted or quarantined, and what they leave for the checks of the whole set."""
    from expectations.judging import Judge

    first, last = job.part
    pairs = partial(_read, PAIRS, job.inputs["pairs"], start=first, stop=last)
    judge = Judge(job.config.validation, _held_out(job.inputs["prompts"]), pairs)
    write_rows(job.out, _split(job, judge))
    judge.tally.save(job.out)
    pa.default_memory_pool().release_unused()
    counts = judge.tally.counts
    return {"pairs": counts.pairs, "accepted": counts.accepted, "quarantined": counts.quarantined}


@stage(
    title="validate pairs",
    needs=("prompts", "pairs"),
    reads=lambda c: c.validation.model_dump(),
    makes=lambda _: "accepted and quarantined pairs",
    uses=lambda _: [(EXPECTATIONS, name) for name in EXPECTATIONS.names()],
    libraries=("great_expectations", "pandas", "numpy"),
    parts=Parts("validation shard", ranges, part),
)
def validation(job: Job) -> Counts:
    """Accepted and quarantined pairs, and the result of each check; a failed set check is recorded, not raised here.

    Raises ValidationError where there are no pairs, and where a pair id comes twice.
    """
    from expectations.judging import verdict
    from expectations.runner import none_given
    from expectations.tally import SavedTally

    if not job.counted["pairs"]:
        raise none_given()
    parts = [SavedTally(folder) for folder in job.parts]
    _require_unique(job.inputs["pairs"], parts)
    found = verdict(job.config.validation, parts, partial(_read, ACCEPTED, job.out))
    write_json(
        job.out / CHECKS,
        {
            "checks": [check.model_dump() for check in found.checks],
            "figures": found.figures,
            "problem": found.problem,
        },
    )
    return dict(job.counted)


def _split(job: Job, judge: "Judge") -> dict[str, Hashed]:
    """Write each pair to one of the two files, in the pairs' order; returns their rows."""
    from expectations.arrays import frame

    first, last = job.part
    done, rows = first, {table.file: Hashed() for table in (ACCEPTED, QUARANTINED)}
    with ACCEPTED.writer(job.out) as accepted, QUARANTINED.writer(job.out) as quarantined:
        for shard in _shards(job.inputs["pairs"], first, last):
            split = judge.split(frame(shard))
            sound = pa.array(split.accepted)
            kept = shard if not split.broken else shard.filter(sound)
            judge.accept(frame(kept))
            accepted.append(kept)
            if split.broken:
                names = pa.array(split.broken, QUARANTINED.schema.field("broken").type)
                quarantined.append(shard.filter(pc.invert(sound)).append_column("broken", names))
            for file, hashed in _hashed(split, job.digests["pairs"], done).items():
                rows[file] += hashed
            done += len(shard)
            job.progress(done - first, last - first)
    return rows


def _hashed(split: "Split", pairs: str, first: int) -> dict[str, Hashed]:
    """The rows that a shard leaves, which begins at a row group of the pairs, known by what became of each pair.

    The content of the pairs, their places and the names of broken checks say all that is in them.
    """
    import numpy as np

    accepted, quarantined, named = Hashed(), Hashed(), 0
    for at in range(0, len(split.accepted), GROUP_ROWS):
        sound = split.accepted[at : at + GROUP_ROWS]
        kept, apart = int(sound.sum()), int((~sound).sum())
        broken = split.broken[named : named + apart]
        named += apart
        told = json.dumps([pairs, first + at, np.packbits(sound).tobytes().hex()])
        accepted += Hashed.told_by(kept, told.encode())
        quarantined += Hashed.told_by(apart, json.dumps([told, broken]).encode())
    return {ACCEPTED.file: accepted, QUARANTINED.file: quarantined}


def _shards(folder: Path, first: int, last: int) -> Iterator[pa.Table]:
    """A range of pairs in order, about `SHARD` or `SHARD_BYTES` at a time, each column in one piece."""
    waiting: list[pa.Table] = []
    for batch in PAIRS.batches(folder, start=first, stop=last):
        waiting.append(batch)
        if sum(map(len, waiting)) >= SHARD or sum(each.nbytes for each in waiting) >= SHARD_BYTES:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _read(
    table: Table[Any], folder: Path, names: Sequence[str] | None, *, start: int = 0, stop: int | None = None
) -> "pd.DataFrame":
    """Those of some columns that a table has, or all, of a range of rows."""
    from expectations.arrays import frame

    columns = [name for name in table.schema.names if names is None or name in names]
    return frame(table.whole(folder, columns, start=start, stop=stop))


def _held_out(folder: Path) -> set[str]:
    batches = PROMPTS.batches(folder, ["prompt_id", "split"])
    return {
        prompt for batch in batches for prompt in batch.filter(pc.field("split") == "eval")["prompt_id"].to_pylist()
    }


def _require_unique(folder: Path, parts: "Sequence[Left]") -> None:
    """Raise ValidationError where a pair id comes twice; hashes tell, and the ids themselves where two are equal."""
    import numpy as np

    from expectations.arrays import hashes, whole
    from expectations.figures import repeated
    from expectations.runner import repeated_id

    again = repeated(parts, "pair")
    seen: set[str] = set()
    for batch in PAIRS.batches(folder, ["pair_id"]) if len(again) else ():
        ids = whole(batch["pair_id"].drop_null())
        for pair_id in ids.filter(pa.array(np.isin(hashes(ids), again))).to_pylist():
            if pair_id in seen:
                raise repeated_id(pair_id)
            seen.add(pair_id)
