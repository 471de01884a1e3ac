"""The pairs of `samples`: from scored samples of one prompt to pairs."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from alignment.config import AlignConfig
from alignment.data.pairs.source import pair_source
from alignment.data.pairs.strategies import pair
from alignment.data.pairs.whole import READ, pairs_of, whole_prompts
from alignment.errors import PairsError
from alignment.rows import SCORES
from alignment.stages.job import Counts, Job

TIED: Mapping[str, str] = {
    "classifier": "the reward model gives every text the same score: check reward.model and reward.positive_class",
    "judge": "the judge gives every text the same score: set pairs.source to judged, which compares, or write another "
    "reward.judge.rubric",
    "function": "the reward's function gives every text the same score: check reward.function",
    "sum": "the parts give every text the same sum: check reward.parts",
}
UNSCORED: Mapping[str, str] = {
    "judge": "look at the judge's answers, which are kept, and check reward.judge.pattern and "
    "reward.judge.max_answer_tokens",
    "function": "find out why reward.function returns None for them",
    "sum": "find out which of reward.parts gives them none",
}
"""The way out where the samples of a prompt tie, and where too few of them have a score, by kind of reward."""


@pair_source("samples", by_prompt=True)
def of_samples(job: Job) -> tuple[Iterator[pa.Table], Counts]:
    """Pairs of scored samples of one prompt, of the prompts of `job.part`.

    Samples without a score are left out and counted, and so are prompts that are left with fewer than two.
    """
    counts: Counts = {}
    return _built(job, counts), counts


def _built(job: Job, counts: Counts) -> Iterator[pa.Table]:
    strategy = job.config.pairs.strategy
    first, last = (prompt * job.config.sampling.samples_per_prompt for prompt in job.part)
    batches = SCORES.batches(job.inputs["scores"], [*READ, "reward"], start=first, stop=last)
    read = built = ties = unscored = alone = 0
    for table, prompts in whole_prompts(batches):
        rewards, ids = table["reward"].to_pylist(), table["prompt_id"]
        pairs: list[tuple[int, int]] = []
        for prompt in prompts:
            scored = [row for row in prompt if rewards[row] is not None]
            unscored += len(prompt) - len(scored)
            if len(scored) < 2:
                alone += 1
                continue
            found = pair([rewards[row] for row in scored], strategy, seed=f"{job.config.seed}:{ids[prompt.start]}")
            ties += found.ties
            pairs += [(scored[better], scored[worse]) for better, worse in found.pairs]
        built += len(pairs)
        yield from pairs_of(table, [better for better, _ in pairs], [worse for _, worse in pairs], strategy)
        read += len(table)
        job.progress(read, last - first)
    counts |= {"candidates": built + ties, "ties": ties, "unscored": unscored, "prompts_unpaired": alone}


def nothing_built(counts: Mapping[str, int], config: AlignConfig) -> PairsError:
    """Why there is no pair of any prompt, and the way out for this kind of reward."""
    return PairsError(_nothing(counts.get("ties", 0), counts.get("unscored", 0), config))


def _nothing(ties: int, unscored: int, config: AlignConfig) -> str:
    kind = config.reward.kind
    if not ties:
        way_out = UNSCORED.get(kind, f"find out why the reward {kind} gives none")
        return (
            f"pairs: no prompt has two samples with a score, since {unscored} samples have none; {way_out}, or raise "
            f"sampling.samples_per_prompt = {config.sampling.samples_per_prompt}"
        )
    left_out = f" and {unscored} samples have no score" if unscored else ""
    way_out = TIED.get(kind, f"find out why the reward {kind} tells no texts apart")
    return (
        f"pairs: all {ties} candidates tied{left_out}, so there is nothing to prefer; {way_out}, or draw more varied "
        "samples"
    )
