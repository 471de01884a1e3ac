"""Stage `reference`: the reference's log-probs of both sides of each accepted pair."""

from typing import Any

from alignment.config import AlignConfig
from alignment.rows import ACCEPTED, REFERENCED
from alignment.stages.job import Counts, Job
from alignment.stages.kept import base_model
from alignment.stages.likelihood import of_completions
from alignment.stages.sources import pairs_are_sampled
from alignment.stages.stage import MODELS, stage

SIDES = ("chosen", "rejected")


def are_exact(config: AlignConfig) -> bool:
    """Whether all pairs are known to carry exact log-probs, so that no model is run."""
    return pairs_are_sampled(config) and config.sampling.engine == "local" and config.sampling.precision == "fp32"


@stage(
    title="reference log-probs",
    needs=("base", "validation"),
    reads=lambda _: {},
    makes=lambda _: "log-probs of both sides of each pair",
    slots=lambda c: int(not are_exact(c)),
    libraries=MODELS,
)
def reference(job: Job) -> Counts:
    """The accepted pairs with the reference's log-probs, and the digest of the model that they are from.

    Samples drawn in fp32 carry the reference's own log-probs already (they agree with a fresh forward pass to 1e-5);
    others, and given pairs, are scored in fp32.
    """
    rows: list[dict[str, Any]] = [dict(row) for row in ACCEPTED.read(job.inputs["validation"])]
    inexact = [row for row in rows if not row["exact_logprob"]]
    for row in rows:
        row |= {f"reference_{side}": row[f"{side}_logprob"] for side in SIDES}
        row["reference"] = job.digests["base"]
    if inexact:
        loaded = base_model(job)
        prompts = [row["prompt_ids"] for row in inexact]
        for side in SIDES:
            found = of_completions(job, loaded, prompts, [row[f"{side}_ids"] for row in inexact])
            for row, logprob in zip(inexact, found, strict=True):
                row[f"reference_{side}"] = logprob
    REFERENCED.write(job.out, rows)
    return {"from_sampling": len(rows) - len(inexact), "scored": len(inexact)}
