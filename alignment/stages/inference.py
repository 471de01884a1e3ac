"""What the stages ask of a model: fresh samples, the reward of texts, log-probs of samples."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.stages.job import Job, Rows

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded


def base_model(job: Job, precision: str = "fp32") -> "Loaded":
    """The base model of the stages that only read it, placed anew: another model may have set the threads since."""
    from alignment.models import place

    loaded = _kept_base(job.inputs["base"] / "model", precision, f"base.model {job.config.base.model}")
    place(loaded.model)
    return loaded


def draw(job: Job, loaded: "Loaded", prompt_rows: Rows, count: int, purpose: str) -> Rows:
    """`count` fresh samples of each prompt, in the prompts' order; `purpose` keeps the random numbers apart.

    A row holds its prompt, its index among that prompt's samples, the completion's token ids (its end token included),
    the whole text, whether an end token ended it, and `logprob`: the sum over the completion, in nats, under the model
    as it was loaded. Raises ModelError where the model cannot see so many tokens at once.
    """
    from alignment.models import require_context
    from alignment.sampling.local import generate, request

    config = job.config.sampling
    require_context(loaded, config.total_tokens, "sampling.total_tokens")
    wanted = [(row, index) for row in prompt_rows for index in range(count)]
    drawn = generate(
        loaded.model,
        [
            request(
                row["prompt_ids"],
                config,
                seed=job.config.seed,
                purpose=purpose,
                prompt_id=row["prompt_id"],
                index=index,
            )
            for row, index in wanted
        ],
        config,
        loaded.conventions,
        name=loaded.name,
        progress=job.progress,
    )
    decoded = loaded.decode(
        [[*row["prompt_ids"], *completion.ids] for (row, _), completion in zip(wanted, drawn, strict=True)],
        [completion.finished for completion in drawn],
    )
    return [
        {
            "prompt_id": row["prompt_id"],
            "prompt": row["prompt"],
            "prompt_ids": row["prompt_ids"],
            "index": index,
            "ids": completion.ids,
            "text": text,
            "finished": completion.finished,
            "logprob": completion.logprob,
        }
        for (row, index), completion, text in zip(wanted, drawn, decoded, strict=True)
    ]


def rewards_of(job: Job, texts: list[str]) -> tuple[list[float], int]:
    """The reward of each text, a raw logit, and how many texts are longer than the reward model reads.

    Raises ModelError where the class to reward is unknown, ScoreError where a score is not finite.
    """
    from alignment import models
    from alignment.rewards import classifier as rewards

    loaded = models.load_reward(job.inputs["reward"] / "model", name=f"reward.model {job.config.reward.model}")
    column = models.positive_class(loaded.model.config, job.config.reward.positive_class)
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


def forget_base() -> None:
    """Let the kept base model go, before a training needs the memory."""
    _kept_base.cache_clear()


@lru_cache(maxsize=1)
def _kept_base(folder: Path, precision: str, name: str) -> "Loaded":
    """One base model is kept, so that shards do not load it again and again."""
    from alignment.models import load_base

    return load_base(folder, precision=precision, name=name)
