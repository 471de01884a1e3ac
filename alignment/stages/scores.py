"""Stage `scores`: the reward of every sample, in parts where one sample's reward does not hang on the others'."""

import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from itertools import chain, islice

import pyarrow as pa

from alignment.config import AlignConfig
from alignment.kinds import REWARDS
from alignment.parquet import OBJECT_ROWS
from alignment.rewards.parts import normalises
from alignment.rows import SAMPLES, SCALES, SCORES
from alignment.stages.job import Counts, Job
from alignment.stages.scoring import part_columns, require_scored, rewards_in_batches
from alignment.stages.shards import by_whole_groups
from alignment.stages.sources import pairs_are_scored, reward_kinds, reward_source
from alignment.stages.stage import MODELS, Parts, Refs, stage
from alignment.stages.store import write_json


def ranges(config: AlignConfig, refs: Refs) -> list[tuple[int, int]]:
    """The training prompts, first to last (excluded), whose samples are scored together.

    A reward that goes through all batches by itself is given all of them.
    """
    if normalises(config) or _wants_all(config):
        return [(0, refs["prompts"].counts["train"])]
    return by_whole_groups(config, refs)


def _wants_all(config: AlignConfig) -> bool:
    from alignment.rewards.protocol import InBatches

    return issubclass(REWARDS.get(config.reward.kind), InBatches)


def part(job: Job) -> Counts:
    """The samples of one range of training prompts, with their rewards."""
    folder, counts = job.inputs["samples"], Counter(scored=0, unscored=0, truncated=0)
    first, last = (prompt * job.config.sampling.samples_per_prompt for prompt in job.part)
    scales: Mapping[str, float] = {}
    with closing(rewards_in_batches(job, folder, range(first, last))) as found:
        begun = list(islice(found, 1))
        kinds = dict.fromkeys(part_columns(begun[0]) if begun else (), pa.float64())
        batches = SAMPLES.batches(folder, rows=OBJECT_ROWS, start=first, stop=last)
        with SCORES.writer(job.out, kinds) as out:
            for batch, scores in zip(batches, chain(begun, found), strict=True):
                for name, values in {"reward": scores.values, **part_columns(scores)}.items():
                    batch = batch.append_column(name, pa.array(values, pa.float64()))
                out.append(batch)
                unscored = batch["reward"].null_count
                counts.update(scored=len(batch) - unscored, unscored=unscored, truncated=scores.truncated)
                counts.update(scores.counts)
                scales = scores.scales
    if scales:
        write_json(job.out / SCALES, dict(scales))
    return dict(counts)


@stage(
    title="score samples",
    needs=("samples", "prompts", "reward"),
    reads=reward_source,
    makes=lambda c: f"up to {c.prompts.count * c.sampling.samples_per_prompt:,} scores",
    slots=1,
    when=pairs_are_scored,
    uses=reward_kinds,
    libraries=MODELS,
    parts=Parts("score shard", ranges, part),
)
def scores(job: Job) -> Counts:
    """The samples with their rewards; `truncated` counts those that the reward model reads in part.

    `unscored` ones have none. A sum's parts have a column each, and the SDs that they were divided by are kept: later
    samples are divided by the same.
    """
    require_scored(job, job.counted["unscored"], job.counted["scored"] + job.counted["unscored"])
    for folder in job.parts:
        if (folder / SCALES).exists():  # in one part alone, as they are of all samples
            shutil.copyfile(folder / SCALES, job.out / SCALES)
    return dict(job.counted)
