"""Stage `scores`: the reward of every sample."""

import pyarrow as pa

from alignment.rows import SAMPLES, SCALES, SCORES
from alignment.stages.job import Counts, Job
from alignment.stages.scoring import part_columns, rewards_of
from alignment.stages.sources import pairs_are_scored, reward_kinds, reward_source
from alignment.stages.stage import MODELS, stage
from alignment.stages.store import write_json


@stage(
    title="score samples",
    needs=("samples", "prompts", "reward"),
    reads=reward_source,
    makes=lambda c: f"up to {c.prompts.count * c.sampling.samples_per_prompt:,} scores",
    slots=1,
    when=pairs_are_scored,
    uses=reward_kinds,
    libraries=MODELS,
)
def scores(job: Job) -> Counts:
    """The samples with their rewards; `truncated` counts those that the reward model reads in part.

    `unscored` ones have none. A sum's parts have a column each, and the SDs that they were divided by are kept: later
    samples are divided by the same.
    """
    rows = SAMPLES.read(job.inputs["samples"])
    found = rewards_of(job, rows)
    parts = part_columns(found)
    SCORES.write(
        job.out,
        (
            {**row, "reward": score, **{name: values[number] for name, values in parts.items()}}
            for number, (row, score) in enumerate(zip(rows, found.values, strict=True))
        ),
        dict.fromkeys(parts, pa.float64()),
    )
    if found.scales:
        write_json(job.out / SCALES, dict(found.scales))
    unscored = sum(score is None for score in found.values)
    return {"scored": len(rows) - unscored, "unscored": unscored, "truncated": found.truncated, **found.counts}
