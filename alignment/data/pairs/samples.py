"""The pairs of `samples`: from scored samples of one prompt to pairs."""

from alignment.data.pairs.source import pair_source
from alignment.data.pairs.strategies import pair
from alignment.errors import PairsError
from alignment.rows import PROMPTS, SCORES, Pair, Sample
from alignment.stages.job import Counts, Job


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
        scores = [reward for row in rows if (reward := row["reward"]) is not None]
        paired = pair(scores, strategy, seed=f"{job.config.seed}:{prompt_id}")
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
