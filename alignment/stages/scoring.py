"""The rewards of samples, by the configured kind."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignment.kinds import REWARDS
from alignment.rows import Sample
from alignment.stages.job import Job

if TYPE_CHECKING:  # it brings the kinds of rewards
    from alignment.rewards.protocol import Scores


def rewards_of(job: Job, rows: Sequence[Sample]) -> "Scores":
    """The reward of each sample, None for one without, and how many of their texts were read in part only.

    Raises ScoreError where a score is not finite, and what the kind of reward raises.
    """
    from alignment.rewards.checking import score
    from alignment.rewards.protocol import Scoring

    kind = REWARDS.get(job.config.reward.kind)(job.config)
    return score(kind, rows, Scoring(job.inputs["reward"], job.kept, job.progress))
