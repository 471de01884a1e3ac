"""The models of the reward `sum`: one for each part that needs one."""

from dataclasses import replace

from alignment.kinds import REWARD_MODELS
from alignment.rewards.parts import alone, part_folder
from alignment.rewards.protocol import reward_model
from alignment.stages.job import Counts, Job


@reward_model("sum", model=False)
def sum_model(job: Job) -> Counts:
    """What each part's kind makes, in a folder of its own, with its counts."""
    counts: Counts = {"parts": len(job.config.reward.parts)}
    for part in job.config.reward.parts:
        if part.kind in REWARD_MODELS.names():
            out, work = part_folder(job.out, part.name), job.work / part.name
            out.mkdir(parents=True)
            work.mkdir(parents=True, exist_ok=True)
            made: Counts = REWARD_MODELS.get(part.kind)(
                replace(job, config=alone(job.config, part), out=out, work=work)
            )
            counts |= {f"{part.name}_{what}": n for what, n in made.items()}
    return counts
