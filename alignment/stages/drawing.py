"""Fresh samples of a model, as rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignment.config import SamplingConfig
from alignment.kinds import ENGINES
from alignment.rows import Prompt, Sample
from alignment.stages.job import Counts, Job

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded


def draw(
    job: Job, loaded: "Loaded", prompt_rows: Sequence[Prompt], count: int, purpose: str, config: SamplingConfig
) -> list[Sample]:
    """`count` fresh samples of each prompt, in the prompts' order; `purpose` keeps the random numbers apart.

    A row holds its prompt, its index among that prompt's samples, the completion's token ids (its end token included),
    the whole text and the completion's, whether an end token ended it, and `logprob`: the sum over the completion, in
    nats, under the model as it was loaded. Raises ModelError where the model cannot see so many tokens at once.
    """
    from alignment.models import require_context
    from alignment.sampling.engine import completion_text, request

    require_context(loaded, config.total_tokens, "sampling.total_tokens")
    wanted = [(row, index) for row in prompt_rows for index in range(count)]
    keeps = ENGINES.origin(config.engine).options.get("keeps", False)
    drawn = ENGINES.get(config.engine)(
        loaded,
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
        job.progress,
        **({"kept": job.work} if keeps else {}),
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
            "completion": completion_text(loaded, row["prompt"], text, completion),
            "finished": completion.finished,
            "logprob": completion.logprob,
            "exact_logprob": completion.exact,
        }
        for (row, index), completion, text in zip(wanted, drawn, decoded, strict=True)
    ]


def count_finished(rows: Sequence[Sample]) -> Counts:
    """How many samples there are, and how many of them end by EOS or for want of room."""
    samples, finished = len(rows), sum(row["finished"] for row in rows)
    return {"samples": samples, "finished": finished, "truncated": samples - finished}
