"""The rewards of samples, and their log-probs under a model."""

from typing import TYPE_CHECKING

from alignment.rows import MODEL, Rows
from alignment.stages.job import Job

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded


def rewards_of(job: Job, rows: Rows) -> tuple[list[float], int]:
    """The reward of each sample, a raw logit, and how many texts are longer than the reward model reads.

    Raises ModelError where the class to reward is unknown, ScoreError where a score is not finite.
    """
    from alignment import models
    from alignment.rewards import classifier as rewards

    texts = [row["text"] for row in rows]
    loaded = models.load_reward(job.inputs["reward"] / MODEL, name=f"reward.model {job.config.reward.model}")
    column = rewards.positive_class(loaded.model.config, job.config.reward.positive_class)
    batch_size = job.config.reward.batch_size * 8  # nothing is kept for a backward pass
    scored: list[float] = rewards.score_texts(
        loaded, texts, column=column, batch_size=batch_size, progress=job.progress
    ).tolist()
    return scored, rewards.count_truncated(loaded, texts)


def logprobs(job: Job, loaded: "Loaded", rows: Rows) -> list[float]:
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
