"""The pairs of `samples`: from scored samples of one prompt to pairs."""

from collections.abc import Mapping

from alignment.config import AlignConfig
from alignment.data.pairs.source import pair_source
from alignment.data.pairs.strategies import pair
from alignment.errors import PairsError
from alignment.rows import PROMPTS, SCORES, Pair, Sample
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


@pair_source("samples")
def of_samples(job: Job) -> tuple[list[Pair], Counts]:
    """Pairs of scored samples of one prompt. Raises PairsError where every candidate tied, or there was none.

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
        scores = [reward for row in rows if (reward := row["reward"]) is not None]
        paired = pair(scores, strategy, seed=f"{job.config.seed}:{prompt_id}")
        ties += paired.ties
        built.extend(
            make_pair(rows[better], rows[worse], prompt_text[prompt_id], strategy) for better, worse in paired.pairs
        )
    if not built:
        raise PairsError(_nothing(ties, unscored, job.config))
    return built, {"candidates": len(built) + ties, "ties": ties, "unscored": unscored, "prompts_unpaired": alone}


def _nothing(ties: int, unscored: int, config: AlignConfig) -> str:
    """Why there is no pair, and the way out for this kind of reward."""
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


def make_pair(chosen: Sample, rejected: Sample, prompt: str, strategy: str) -> Pair:
    """Two scored samples of one prompt as a pair."""
    assert chosen["reward"] is not None
    assert rejected["reward"] is not None
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
        "fault": "",
    }
