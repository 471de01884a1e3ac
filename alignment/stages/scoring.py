"""The rewards of samples, by the configured kind."""

from collections.abc import Sequence

from alignment.kinds import REWARDS
from alignment.rows import Sample
from alignment.stages.job import Job


def rewards_of(job: Job, rows: Sequence[Sample]) -> tuple[Sequence[float], int]:
    """The reward of each sample, and how many of their texts were read in part only.

    Raises ScoreError where a score is not finite, and what the kind of reward raises.
    """
    from alignment.rewards.checking import score

    found = score(REWARDS.get(job.config.reward.kind)(job.config), job.inputs["reward"], rows, job.progress)
    return found.values, found.truncated
