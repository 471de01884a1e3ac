"""Stage `pairs`: chosen and rejected samples of each prompt."""

import random

from alignment.kinds import PAIRS as SOURCES
from alignment.kinds import STRATEGIES
from alignment.rows import PAIRS, Pair
from alignment.stages.job import Counts, Job
from alignment.stages.sources import fields_of, pairs_are_sampled
from alignment.stages.stage import stage


@stage(
    title="build pairs",
    needs=lambda c: ("prompts", "scores") if pairs_are_sampled(c) else ("prompts",),
    reads=lambda c: {"pairs": fields_of(c.pairs, c.pairs.source, c.pairs.strategy), "seed": c.seed},
    makes=lambda c: c.pairs.strategy,
    uses=lambda c: [(SOURCES, c.pairs.source), (STRATEGIES, c.pairs.strategy)],
)
def pairs(job: Job) -> Counts:
    """The pairs of the configured source, or as many of them as are wanted, drawn with the seed."""
    config = job.config.pairs
    built: list[Pair]
    counts: Counts
    built, counts = SOURCES.get(config.source)(job)
    kept = built
    if config.max_pairs and len(built) > config.max_pairs:
        kept = random.Random(job.config.seed).sample(built, config.max_pairs)  # noqa: S311 - reproducible, not secret
    PAIRS.write(job.out, kept)
    return counts | {"built": len(kept), "not_needed": len(built) - len(kept)}
