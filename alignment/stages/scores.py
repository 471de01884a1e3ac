"""Stage `scores`: the reward of every sample."""

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from itertools import chain, islice

import pyarrow as pa

from alignment.rows import OBJECT_ROWS, SAMPLES, SCALES, SCORES
from alignment.stages.job import Counts, Job
from alignment.stages.scoring import part_columns, require_scored, rewards_in_batches
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
    folder, counts = job.inputs["samples"], Counter(scored=0, unscored=0, truncated=0)
    scales: Mapping[str, float] = {}
    with closing(rewards_in_batches(job, folder)) as found:
        first = list(islice(found, 1))
        kinds = dict.fromkeys(part_columns(first[0]) if first else (), pa.float64())
        with SCORES.writer(job.out, kinds) as out:
            for batch, scores in zip(SAMPLES.batches(folder, rows=OBJECT_ROWS), chain(first, found), strict=True):
                for name, values in {"reward": scores.values, **part_columns(scores)}.items():
                    batch = batch.append_column(name, pa.array(values, pa.float64()))
                out.append(batch)
                unscored = batch["reward"].null_count
                counts.update(scored=len(batch) - unscored, unscored=unscored, truncated=scores.truncated)
                counts.update(scores.counts)
                scales = scores.scales
    require_scored(job, counts["unscored"], counts["scored"] + counts["unscored"])
    if scales:
        write_json(job.out / SCALES, dict(scales))
    return dict(counts)
