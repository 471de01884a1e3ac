"""What a source of pairs and a strategy are: functions, each registered under its name by a decorator."""

import random
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from alignment.kinds import PAIRS, STRATEGIES, registers
from alignment.rows import Pair
from alignment.stages.job import Counts, Job

Indices = tuple[int, int]
StrategyFunction = Callable[[Sequence[float], random.Random], Iterator[Indices]]
Built = Sequence[Pair] | Iterator[pa.Table]
"""Pairs as a list or another sequence; where they may be many, as tables of some thousands, with `PAIRS`' columns."""

PairSource = Callable[[Job], tuple[Built, Counts]]


def strategy(name: str) -> Callable[[StrategyFunction], StrategyFunction]:
    """Register `(scores of a prompt, random) -> candidates (better, worse)` under its name in `pairs.strategy`."""
    return registers(STRATEGIES, name)


def pair_source(
    name: str, *, sampled: bool = True, scored: bool = True, by_prompt: bool = False
) -> Callable[[PairSource], PairSource]:
    """Register `job -> pairs, counts` under its name in `pairs.source`; the counts say what gave no pair, and why.

    The counts may be filled while tables are taken: they are looked at after the last one. Unless its pairs are
    `sampled`, no samples are drawn for it, and unless they are `scored`, none is scored. One that pairs the samples of
    each prompt `by_prompt`, whatever those of others are, is asked for some prompts at a time: those of `job.part`,
    first to last (excluded) of those that are trained on.
    """
    del sampled, scored, by_prompt  # read from here by `alignment.stages.sources`, without an import
    return registers(PAIRS, name)
