"""Stage `reference_samples`: many samples of the base on each held-out prompt, scored: what no training can beat."""

from alignment.config import AlignConfig
from alignment.config.frontier import frontier_of
from alignment.config.policy import for_any_model
from alignment.rows import SCORES
from alignment.stages import evaluating
from alignment.stages.drawing import draw
from alignment.stages.job import Counts, Job
from alignment.stages.kept import base_model
from alignment.stages.scoring import rewards_of
from alignment.stages.sides import held_out
from alignment.stages.sources import engine_kinds, reward_kinds, reward_source
from alignment.stages.stage import MODELS, Parts, Refs, stage


def ranges(config: AlignConfig, refs: Refs) -> list[tuple[int, int]]:
    """The held-out prompts, first to last (excluded), that are sampled together: as many samples as in other shards."""
    settings, sampling = frontier_of(config), config.sampling
    there = refs["prompts"].counts["eval"]
    prompts = min(there, settings.held_out or there)
    size = max(1, sampling.shard_prompts * sampling.samples_per_prompt // settings.ceiling_samples)
    return [(first, min(first + size, prompts)) for first in range(0, prompts, size)]


def part(job: Job) -> Counts:
    """The scored samples of one range of held-out prompts."""
    first, last = job.part
    prompts = held_out(job.inputs["prompts"])[first:last]
    loaded = base_model(job, "sampling.precision")
    rows = draw(
        job, loaded, prompts, frontier_of(job.config).ceiling_samples, "ceiling", for_any_model(job.config.sampling)
    )
    rewards = rewards_of(job, rows).values
    SCORES.write(job.out, ({**row, "reward": reward} for row, reward in zip(rows, rewards, strict=True)))
    return {"samples": len(rows), "unscored": sum(reward is None for reward in rewards)}


@stage(
    title="draw reference samples",
    needs=lambda c: ("base", "reward", "prompts", *evaluating.scaled(c)),
    reads=lambda c: {
        "sampling": evaluating.sampling_of(c),
        "reward": reward_source(c),
        "seed": c.seed,
        **frontier_of(c).model_dump(include={"ceiling_samples", "held_out"}),
    },
    makes=lambda c: f"{frontier_of(c).ceiling_samples:,} samples of each held-out prompt, scored",
    slots=1,
    uses=lambda c: [*engine_kinds(for_any_model(c.sampling)), *reward_kinds(c)],
    libraries=(*MODELS, "numpy"),
    parts=Parts("sample the reference, shard", ranges, part),
)
def reference_samples(job: Job) -> Counts:
    """The base's samples of all held-out prompts with their rewards, prompt by prompt."""
    return dict(job.counted)
