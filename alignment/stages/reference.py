"""Stage `reference`: the reference's log-probs of both sides of each accepted pair."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from alignment.config import AlignConfig
from alignment.config.policy import has_exact_logprobs
from alignment.parquet import OBJECT_ROWS
from alignment.rows import ACCEPTED, REFERENCED
from alignment.stages.job import Counts, Job, share
from alignment.stages.kept import base_model
from alignment.stages.likelihood import of_completions
from alignment.stages.sources import pairs_are_sampled
from alignment.stages.stage import MODELS, stage

SIDES = ("chosen", "rejected")


def are_exact(config: AlignConfig) -> bool:
    """Whether all pairs are known to carry exact log-probs, so that no model is run."""
    return pairs_are_sampled(config) and has_exact_logprobs(config.sampling) and not rounded(config)


def rounded(config: AlignConfig) -> dict[str, str]:
    """In what precision the policy's training computes, where that is not fp32 throughout; else nothing."""
    found: dict[str, str] = {"precision": config.dpo.precision, "load_in": config.base.load_in}
    return found if set(found.values()) != {"fp32"} else {}


@stage(
    title="reference log-probs",
    needs=("base", "validation"),
    reads=rounded,
    makes=lambda _: "log-probs of both sides of each pair",
    slots=lambda c: int(not are_exact(c)),
    libraries=MODELS,
)
def reference(job: Job) -> Counts:
    """The accepted pairs with the reference's log-probs, and the digest of the model that they are from.

    Samples drawn in fp32 carry the reference's own log-probs already (they agree with a fresh forward pass to 1e-5);
    others, and given pairs, are scored in fp32. Where the policy's training rounds, all are scored as it computes, so
    that rounding, which is all one way, is no part of the margin.
    """
    folder = job.inputs["validation"]
    pairs, done, scored = ACCEPTED.count(folder), 0, 0
    with REFERENCED.writer(job.out) as out:
        for batch in ACCEPTED.batches(folder, rows=OBJECT_ROWS):
            inexact = pc.invert(batch["exact_logprob"].combine_chunks())
            if rounded(job.config):
                inexact = pa.repeat(True, len(batch))
            left = batch.select(["prompt_ids", *(f"{side}_ids" for side in SIDES)]).filter(inexact)
            progress = share(job.progress, 2 * done, 2 * len(batch), 2 * pairs)
            computed = scores(replace(job, progress=progress), left) if len(left) else {}
            for side in SIDES:
                found = batch[f"{side}_logprob"].combine_chunks()
                if side in computed:
                    found = pc.replace_with_mask(found, inexact, computed[side])
                batch = batch.append_column(f"reference_{side}", found)
            out.append(batch.append_column("reference", pa.repeat(job.digests["base"], len(batch))))
            done += len(batch)
            job.progress(2 * done, 2 * pairs)
            scored += pc.sum(inexact).as_py()
    return {"from_sampling": pairs - scored, "scored": scored}


def scores(job: Job, pairs: pa.Table) -> dict[str, pa.Array]:
    """The reference's log-probs of the sides of pairs, a table of prompts and completions in token ids, by side.

    Both sides of a pair are given side by side, so that they may share the pass over their prompt.
    """
    from alignment import bits
    from alignment.device import device, rounding

    bits.require(job.config, gpu=device().type == "cuda")
    prompts, *sides = (column.to_pylist() for column in pairs.columns)
    with rounding(job.config.dpo.precision):
        found = of_completions(
            job,
            base_model(job, "base.load_in"),
            [prompt for prompt in prompts for _ in sides],
            [completion for pair in zip(*sides, strict=True) for completion in pair],
        )
    return {side: pa.array(found[number :: len(SIDES)], pa.float64()) for number, side in enumerate(SIDES)}
