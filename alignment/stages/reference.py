"""Stage `reference`: the reference's log-probs of both sides of each accepted pair."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from alignment.config import AlignConfig
from alignment.rows import ACCEPTED, OBJECT_ROWS, REFERENCED
from alignment.stages.job import Counts, Job, share
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
    folder = job.inputs["validation"]
    pairs, done, scored = ACCEPTED.count(folder), 0, 0
    with REFERENCED.writer(job.out) as out:
        for batch in ACCEPTED.batches(folder, rows=OBJECT_ROWS):
            inexact = pc.invert(batch["exact_logprob"].combine_chunks())
            for number, side in enumerate(SIDES):
                found = batch[f"{side}_logprob"].combine_chunks()
                left = batch.select(["prompt_ids", f"{side}_ids"]).filter(inexact)
                if len(left):
                    reports = share(job.progress, 2 * done + number * len(batch), len(batch), 2 * pairs)
                    found = pc.replace_with_mask(found, inexact, scores(replace(job, progress=reports), left))
                batch = batch.append_column(f"reference_{side}", found)
            out.append(batch.append_column("reference", pa.repeat(job.digests["base"], len(batch))))
            done += len(batch)
            job.progress(2 * done, 2 * pairs)
            scored += pc.sum(inexact).as_py()
    return {"from_sampling": pairs - scored, "scored": scored}


def scores(job: Job, completions: pa.Table) -> pa.Array:
    """The reference's log-probs of completions: a table of prompts and completions in token ids."""
    prompts, ids = (column.to_pylist() for column in completions.columns)
    return pa.array(of_completions(job, base_model(job), prompts, ids), pa.float64())
