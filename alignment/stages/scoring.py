"""The rewards of samples, and their log-probs under a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignment.kinds import REWARDS
from alignment.rows import Sample
from alignment.stages.job import Job

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded


def rewards_of(job: Job, rows: Sequence[Sample]) -> tuple[Sequence[float], int]:
    """The reward of each sample, and how many of their texts were read in part only.

    Raises ScoreError where a score is not finite, and what the kind of reward raises.
    """
    from alignment.rewards.checking import score

    found = score(REWARDS.get(job.config.reward.kind)(job.config), job.inputs["reward"], rows, job.progress)
    return found.values, found.truncated


def logprobs(job: Job, loaded: "Loaded", rows: Sequence[Sample]) -> list[float]:
    """log p(completion | prompt) of each sample under a model, whoever wrote it: sums in nats, in the rows' order."""
    from alignment.logprobs import score_completions

    found: list[float] = score_completions(
        loaded.model,
        [row["prompt_ids"] for row in rows],
        [row["ids"] for row in rows],
        pad_id=loaded.pad_id,
        batch_size=min(64, job.config.sampling.batch_size),  # logits of every position, where sampling has one's
        name=loaded.name,
        progress=job.progress,
    ).tolist()
    return found
