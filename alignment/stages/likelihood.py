"""The log-probs of samples under a model, whoever wrote them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignment.rows import Sample
from alignment.stages.job import Job

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded


def logprobs(job: Job, loaded: "Loaded", rows: Sequence[Sample]) -> list[float]:
    """log p(completion | prompt) of each sample under a model, whoever wrote it: sums in nats, in the rows' order."""
    return of_completions(job, loaded, [row["prompt_ids"] for row in rows], [row["ids"] for row in rows])


def of_completions(
    job: Job, loaded: "Loaded", prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[float]:
    """The same of prompts and completions in token ids."""
    from alignment.logprobs import score_completions

    found: list[float] = score_completions(
        loaded.model,
        prompts,
        completions,
        pad_id=loaded.pad_id,
        batch_tokens=job.config.sampling.batch_tokens,
        name=loaded.name,
        progress=job.progress,
    ).tolist()
    return found
