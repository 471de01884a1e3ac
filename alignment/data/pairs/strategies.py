"""Strategies: which of the scored samples of one prompt is chosen over which."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from alignment.data.pairs.source import Indices, strategy
from alignment.kinds import STRATEGIES


@dataclass(frozen=True)
class Paired:
    """Index pairs (chosen, rejected), in the strategy's order, and how many candidates tied and so gave none."""

    pairs: list[Indices]
    ties: int


def pair(scores: Sequence[float], name: str, *, seed: str) -> Paired:
    """Pair the samples of one prompt; in every pair the chosen score is strictly the higher one."""
    candidates = list(STRATEGIES.get(name)(scores, random.Random(seed)))  # noqa: S311 - reproducible, not secret
    pairs = [(better, worse) for better, worse in candidates if scores[better] > scores[worse]]
    return Paired(pairs, len(candidates) - len(pairs))


@strategy("best_vs_worst")
def best_vs_worst(scores: Sequence[float], _: random.Random) -> Iterator[Indices]:
    """The best sample against the worst: one pair, the widest gap."""
    order = _ranked(scores)
    yield order[0], order[-1]


@strategy("best_vs_rest")
def best_vs_rest(scores: Sequence[float], _: random.Random) -> Iterator[Indices]:
    """The best sample against each of the others: N − 1 pairs."""
    order = _ranked(scores)
    for worse in order[1:]:
        yield order[0], worse


@strategy("all_pairs")
def all_pairs(scores: Sequence[float], _: random.Random) -> Iterator[Indices]:
    """Every sample against each that scored lower: up to N (N − 1) / 2 pairs."""
    order = _ranked(scores)
    for position, better in enumerate(order):
        for worse in order[position + 1 :]:
            yield better, worse


@strategy("best_vs_random")
def best_vs_random(scores: Sequence[float], rng: random.Random) -> Iterator[Indices]:
    """The best sample against one of the others at random: one pair, an unbiased gap."""
    order = _ranked(scores)
    yield order[0], rng.choice(order[1:])


@strategy("best_half_vs_worst_half")
def best_half_vs_worst_half(scores: Sequence[float], _: random.Random) -> Iterator[Indices]:
    """The best against the worst, the second best against the second worst and so on: N // 2 pairs, no sample twice."""
    order = _ranked(scores)
    for position in range(len(order) // 2):
        yield order[position], order[-1 - position]


@strategy("gap_weighted")
def gap_weighted(scores: Sequence[float], rng: random.Random) -> Iterator[Indices]:
    """N // 2 of all pairs, drawn one after another with a probability proportional to the gap of their scores.

    Between `all_pairs`, most of which tell little, and `best_vs_worst`, which knows the two ends alone. Of a draw
    without replacement the smallest of −log(uniform)/weight come first: Efraimidis and Spirakis 2006.
    """
    candidates = list(combinations(_ranked(scores), 2))

    def drawn_at(pair: Indices) -> float:
        gap, waited = scores[pair[0]] - scores[pair[1]], -math.log(1 - rng.random())
        return waited / gap if gap else math.inf

    yield from sorted(candidates, key=drawn_at)[: len(scores) // 2]


def _ranked(scores: Sequence[float]) -> list[int]:
    if len(scores) < 2:
        raise ValueError(f"a prompt has {len(scores)} scored sample(s): a pair needs two")
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))
