"""From scored samples of one prompt to pairs: which of them is chosen over which."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from alignment.errors import PairsError
from alignment.kinds import PAIRS, STRATEGIES, registers
from alignment.rows import PROMPTS, SCORES, Pair, Sample
from alignment.stages.job import Counts, Job

Indices = tuple[int, int]
StrategyFunction = Callable[[Sequence[float], random.Random], Iterator[Indices]]
PairSource = Callable[[Job], tuple[list[Pair], Counts]]


def strategy(name: str) -> Callable[[StrategyFunction], StrategyFunction]:
    """Register `(scores of a prompt, random) -> candidates (better, worse)` under its name in `pairs.strategy`."""
    return registers(STRATEGIES, name)


def pair_source(name: str, *, sampled: bool = True) -> Callable[[PairSource], PairSource]:
    """Register `job -> pairs, counts` under its name in `pairs.source`; the counts say what gave no pair, and why.

    Unless its pairs are `sampled`, no samples are drawn and scored for it.
    """
    del sampled  # read from here by `alignment.stages.sources.pairs_are_sampled`, without an import
    return registers(PAIRS, name)


@dataclass(frozen=True)
class Paired:
    """Index pairs (chosen, rejected), best first, and how many candidates tied and so gave none."""

    pairs: list[Indices]
    ties: int


def pair(scores: Sequence[float], name: str, *, seed: str) -> Paired:
    """Pair the samples of one prompt; in every pair the chosen score is strictly the higher one."""
    candidates = list(STRATEGIES.get(name)(scores, random.Random(seed)))  # noqa: S311 - reproducible, not secret
    pairs = [(better, worse) for better, worse in candidates if scores[better] > scores[worse]]
    return Paired(pairs, len(candidates) - len(pairs))


@pair_source("samples")
def of_samples(job: Job) -> tuple[list[Pair], Counts]:
    """Pairs of scored samples of one prompt. Raises PairsError where every candidate tied.

    Samples without a score are left out and counted, and so are prompts that are left with fewer than two.
    """
    prompt_text = {row["prompt_id"]: row["prompt"] for row in PROMPTS.read(job.inputs["prompts"])}
    by_prompt: dict[str, list[Sample]] = {}
    unscored = 0
    for row in SCORES.read(job.inputs["scores"]):
        scored = by_prompt.setdefault(row["prompt_id"], [])
        if row["reward"] is None:
            unscored += 1
        else:
            scored.append(row)
    built: list[Pair] = []
    ties = alone = 0
    strategy = job.config.pairs.strategy
    for prompt_id, rows in by_prompt.items():
        if len(rows) < 2:
            alone += 1
            continue
        paired = pair([row["reward"] for row in rows], strategy, seed=f"{job.config.seed}:{prompt_id}")
        ties += paired.ties
        built.extend(
            make_pair(rows[better], rows[worse], prompt_text[prompt_id], strategy) for better, worse in paired.pairs
        )
    if not built:
        raise PairsError(
            f"pairs: all {ties} candidates tied, so there is nothing to prefer; the reward model gives every text the "
            "same score: check reward.model and reward.positive_class, or draw more varied samples"
        )
    return built, {"candidates": len(built) + ties, "ties": ties, "unscored": unscored, "prompts_unpaired": alone}


def make_pair(chosen: Sample, rejected: Sample, prompt: str, strategy: str) -> Pair:
    """Two scored samples of one prompt as a pair."""
    return {
        "pair_id": f"{chosen['prompt_id']}-{chosen['index']}-{rejected['index']}",
        "prompt_id": chosen["prompt_id"],
        "prompt": prompt,
        "prompt_ids": chosen["prompt_ids"],
        "chosen": chosen["text"],
        "rejected": rejected["text"],
        "chosen_ids": chosen["ids"],
        "rejected_ids": rejected["ids"],
        "chosen_score": chosen["reward"],
        "rejected_score": rejected["reward"],
        "gap": chosen["reward"] - rejected["reward"],
        "chosen_tokens": len(chosen["ids"]),
        "rejected_tokens": len(rejected["ids"]),
        "strategy": strategy,
        "chosen_logprob": chosen["logprob"],
        "rejected_logprob": rejected["logprob"],
        "exact_logprob": chosen["exact_logprob"] and rejected["exact_logprob"],
    }


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


def _ranked(scores: Sequence[float]) -> list[int]:
    if len(scores) < 2:
        raise ValueError(f"a prompt has {len(scores)} scored sample(s): a pair needs two")
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))
