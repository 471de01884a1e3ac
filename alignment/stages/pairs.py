"""Stage `pairs`: what is chosen over what as a completion of a prompt."""

import random

from alignment.config import AlignConfig
from alignment.kinds import PAIRS as SOURCES
from alignment.kinds import STRATEGIES
from alignment.rows import PAIRS, Pair
from alignment.stages.job import Counts, Job
from alignment.stages.sources import pairs_are_given, pairs_are_sampled, pairs_are_scored, pairs_source
from alignment.stages.stage import stage


def needs(config: AlignConfig) -> tuple[str, ...]:
    """The samples with or without their scores, or none of them: given pairs are rows, and become token ids here."""
    if pairs_are_given(config):
        return "texts", "base", "prompts"
    if pairs_are_scored(config):
        return "prompts", "scores"
    return ("prompts", "samples") if pairs_are_sampled(config) else ("prompts",)


@stage(
    title="build pairs",
    needs=needs,
    reads=pairs_source,
    makes=lambda c: c.pairs.strategy if pairs_are_scored(c) else c.pairs.source,
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
    PAIRS.write(job.out, ({"fault": "", **pair} for pair in kept))
    return counts | {"built": len(kept), "not_needed": len(built) - len(kept)}
