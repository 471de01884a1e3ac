"""Stage `scores`: the reward of every sample."""

from alignment.kinds import REWARDS
from alignment.rows import SAMPLES, SCORES
from alignment.stages.job import Counts, Job
from alignment.stages.scoring import rewards_of
from alignment.stages.sources import pairs_are_sampled, reward_source
from alignment.stages.stage import MODELS, stage


@stage(
    title="score samples",
    needs=("samples", "reward"),
    reads=reward_source,
    makes=lambda c: f"up to {c.prompts.count * c.sampling.samples_per_prompt:,} scores",
    slots=1,
    when=pairs_are_sampled,
    uses=lambda c: [(REWARDS, c.reward.kind)],
    libraries=MODELS,
)
def scores(job: Job) -> Counts:
    """The samples with their rewards; `truncated` counts those that the reward model reads in part."""
    rows = SAMPLES.read(job.inputs["samples"])
    found = rewards_of(job, rows)
    SCORES.write(job.out, ({**row, "reward": score} for row, score in zip(rows, found.values, strict=True)))
    return {"scored": len(rows), "truncated": found.truncated}
