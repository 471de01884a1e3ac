"""Stage `pairs`: what is chosen over what as a completion of a prompt."""

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from alignment.config import AlignConfig
from alignment.data.pairs.samples import nothing_built
from alignment.data.pairs.source import Built
from alignment.kinds import PAIRS as SOURCES
from alignment.kinds import STRATEGIES
from alignment.rows import PAIRS
from alignment.stages.job import Counts, Job
from alignment.stages.shards import by_whole_groups
from alignment.stages.sources import pairs_are_given, pairs_are_sampled, pairs_are_scored, pairs_source
from alignment.stages.stage import Parts, Refs, stage


def needs(config: AlignConfig) -> tuple[str, ...]:
    """The samples with or without their scores, or none of them: given pairs are rows, and become token ids here."""
    if pairs_are_given(config):
        return "texts", "base", "prompts"
    if pairs_are_scored(config):
        return "prompts", "scores"
    return ("prompts", "samples") if pairs_are_sampled(config) else ("prompts",)


def ranges(config: AlignConfig, refs: Refs) -> list[tuple[int, int]]:
    """The training prompts, first to last (excluded), whose pairs are built together.

    All of them, unless the source pairs each prompt's samples by themselves and every pair is kept.
    """
    if _is_by_prompt(config) and not config.pairs.max_pairs:
        return by_whole_groups(config, refs)
    return [(0, refs["prompts"].counts["train"])]


def part(job: Job) -> Counts:
    """The pairs of one range of training prompts, or of all: as many as are wanted, drawn with the seed, in order."""
    config = job.config.pairs
    built: Built
    counts: Counts
    built, counts = SOURCES.get(config.source)(job)
    with PAIRS.writer(job.scratch if config.max_pairs else job.out) as writer:
        if isinstance(built, Sequence):
            writer.write({"fault": "", **pair} for pair in built)
        else:
            for table in built:
                writer.append(table)
    if not config.max_pairs:
        return counts | {"built": PAIRS.count(job.out), "not_needed": 0}
    found, done = PAIRS.count(job.scratch), 0
    wanted = chosen(found, config.max_pairs, job.config.seed)
    with PAIRS.writer(job.out) as writer:
        for batch in PAIRS.batches(job.scratch):
            writer.append(batch.filter(pa.array(wanted[done : done + len(batch)])))
            done += len(batch)
    kept = int(wanted.sum())
    return counts | {"built": kept, "not_needed": found - kept}


@stage(
    title="build pairs",
    needs=needs,
    reads=pairs_source,
    makes=lambda c: c.pairs.strategy if pairs_are_scored(c) else c.pairs.source,
    uses=lambda c: [(SOURCES, c.pairs.source), (STRATEGIES, c.pairs.strategy)],
    parts=Parts("pair shard", ranges, part),
)
def pairs(job: Job) -> Counts:
    """The pairs of the configured source. Raises PairsError where no prompt has given one."""
    if _is_by_prompt(job.config) and not job.counted["built"]:
        raise nothing_built(job.counted, job.config)
    return dict(job.counted)


def _is_by_prompt(config: AlignConfig) -> bool:
    return bool(SOURCES.origin(config.pairs.source).options.get("by_prompt", False))


def chosen(found: int, most: int, seed: int) -> NDArray[np.bool_]:
    """Which of the pairs that were found are kept, at most so many; shape [found]."""
    if found <= most:
        return np.ones(found, bool)
    wanted = np.zeros(found, bool)
    wanted[random.Random(seed).sample(range(found), most)] = True  # noqa: S311 - reproducible, not secret
    return wanted
