"""Stage `ranking`: the log-probs of held-out pairs under the aligned model and the base."""

from functools import partial
from typing import Any

from alignment.config import AlignConfig
from alignment.errors import PairsError
from alignment.rows import MODEL, RANKED, Pair
from alignment.stages.job import Counts, Job
from alignment.stages.kept import base_model, forget_model
from alignment.stages.likelihood import of_completions
from alignment.stages.outlined import base_outline
from alignment.stages.sides import held_out
from alignment.stages.sources import pairs_are_given, prompts_source
from alignment.stages.stage import MODELS, stage

SIDES = ("chosen", "rejected")


def reads(config: AlignConfig) -> Any:
    """The settings by which given pairs become token ids, and how exact their log-probs are."""
    return {"prompts": prompts_source(config), "precision": config.evaluation.precision}


@stage(
    title="rank held-out pairs",
    needs=("policy", "base", "prompts"),
    reads=reads,
    makes=lambda c: f"log-probs of up to {c.prompts.eval_count:,} pairs under both models",
    slots=1,
    when=pairs_are_given,
    libraries=MODELS,
)
def ranking(job: Job) -> Counts:
    """The first pair of each held-out prompt, so that pairs are independent, with log-probs that are sums in nats.

    Raises PairsError where fewer than two held-out prompts have a pair.
    """
    from alignment import models
    from alignment.data.pairs.given import Tokenised

    made, field = Tokenised(base_outline(job), job.config), "evaluation.precision"
    load_policy = partial(models.load_base, job.inputs["policy"] / MODEL, name="the aligned model")
    prompts = held_out(job.inputs["prompts"])
    found = [made.pair(prompt["columns"], number) for number, prompt in enumerate(prompts)]
    pairs: list[Pair] = [pair for pair in found if not pair["fault"]]
    if len(pairs) < 2:
        raise PairsError(
            f"pairs: {len(pairs)} of {len(prompts)} held-out prompts have a pair that fits the model, and two are "
            "needed; raise prompts.eval_fraction, or give more pairs"
        )
    rows: list[dict[str, Any]] = [{"prompt_id": pair["prompt_id"]} for pair in pairs]
    for name, load in (
        ("base", partial(base_model, job, field)),
        ("policy", partial(load_policy, precision=job.config.evaluation.precision, field=field)),
    ):
        loaded = load()
        for side in SIDES:
            completions = [pair["chosen_ids"] if side == "chosen" else pair["rejected_ids"] for pair in pairs]
            logprobs = of_completions(job, loaded, [pair["prompt_ids"] for pair in pairs], completions)
            for row, logprob in zip(rows, logprobs, strict=True):
                row[f"{name}_{side}"] = logprob
        del loaded  # the next model needs the memory
        forget_model()
    RANKED.write(job.out, rows)
    return {"pairs": len(pairs), "left_out": len(prompts) - len(pairs)}
