"""What the stages `before`, `after` and `drift` share: fresh samples on the held-out prompts, and what is measured."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from alignment.config import AlignConfig
from alignment.config.policy import for_any_model
from alignment.kinds import JUDGES, Kinds
from alignment.parquet import Table
from alignment.rewards.parts import normalises
from alignment.rows import EVALUATED, JUDGED, MODEL, Sample
from alignment.stages.drawing import count_finished, draw
from alignment.stages.job import Counts, Job
from alignment.stages.kept import base_model, forget_model, precision_of
from alignment.stages.likelihood import logprobs
from alignment.stages.scoring import part_columns, rewards_of
from alignment.stages.sides import held_out
from alignment.stages.sources import (
    drawn_by,
    engine_kinds,
    fields_of,
    reward_kinds,
    reward_source,
    sampling_source,
)

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded


MEASURED_IN = "evaluation.precision"

NOT_JUDGES = {
    *("samples_per_prompt", "bootstrap", "confidence", "anchor", "table_rows", "gold", "gold_fraction"),
    *("real_texts", "real_column", "real_rows", "tasks", "task_rows", "precision"),
}
"""Fields of `evaluation` that decide nothing of a judgement."""


def sampling_of(config: AlignConfig) -> dict[str, Any]:
    """What decides the samples of any model, beside how many there are."""
    left_out = {"samples_per_prompt", "shard_prompts", "batch_tokens"}
    return sampling_source(for_any_model(config.sampling), without=left_out)


def reads(config: AlignConfig) -> dict[str, Any]:
    """What decides the samples of an evaluation, and what is measured on them."""
    return {
        "sampling": sampling_of(config),
        "samples_per_prompt": config.evaluation.samples_per_prompt,
        "precision": config.evaluation.precision,
        "judge": fields_of(config.evaluation, config.evaluation.judge, without=NOT_JUDGES),
        "reward": reward_source(config),
        "seed": config.seed,
    }


def makes(config: AlignConfig) -> str:
    """How many samples there will be at most."""
    engine = drawn_by(for_any_model(config.sampling))
    return f"up to {config.prompts.eval_count * config.evaluation.samples_per_prompt:,} samples, scored{engine}"


def uses(config: AlignConfig) -> list[tuple[Kinds[Any], str]]:
    """The engine that draws them, the reward, and the judge."""
    return [*engine_kinds(for_any_model(config.sampling)), *reward_kinds(config), (JUDGES, config.evaluation.judge)]


def scaled(config: AlignConfig) -> tuple[str, ...]:
    """The stage whose samples' SDs parts of a sum are divided by, where there are any."""
    return ("scores",) if normalises(config) else ()


def evaluate(job: Job, writer: str) -> Counts:
    """Fresh samples of the model of one stage, with its own and the base's log-probs, rewards and judgements."""
    rows = write_held_out(job, _model(job, writer, "sampling.precision"))
    measure_again(job, rows, lambda: _model(job, writer, MEASURED_IN))
    of_base = [row["logprob"] for row in rows]
    if writer != "base":
        of_base = logprobs(job, base_model(job, MEASURED_IN), rows)
    for row, logprob in zip(rows, of_base, strict=True):
        row["base_logprob"] = logprob
    forget_model()
    return write_judged(job, EVALUATED, job.out, rows)


def measure_again(job: Job, rows: Sequence[Sample], load: Callable[[], "Loaded"]) -> None:
    """Give samples the log-probs that their own model, which is loaded for it, has in `evaluation.precision`.

    Those that were drawn in fp32 are left as they are where that is fp32.
    """
    is_exact = job.config.evaluation.precision == "fp32"
    left = [row for row in rows if not (is_exact and row["exact_logprob"])]
    if left:
        for row, logprob in zip(left, logprobs(job, load(), left), strict=True):
            row |= {"logprob": logprob, "exact_logprob": is_exact}


def _model(job: Job, writer: str, field: str) -> "Loaded":
    """The model of a stage. One is loaded at a time: two would need the memory of both."""
    from alignment import models

    if writer == "base":
        return base_model(job, field)
    forget_model()
    folder = job.inputs[writer] / MODEL
    return models.load_base(folder, precision=precision_of(job, field), field=field, name="the aligned model")


def write_judged(job: Job, table: Table[Any], folder: Path, rows: Sequence[Sample]) -> Counts:
    """Samples with their rewards and judgements, which have a column each beside those of `table`."""
    scored = rewards_of(job, rows)
    figures = JUDGES.get(job.config.evaluation.judge)([row["text"] for row in rows], job.config.evaluation)
    judged = {f"{JUDGED}{figure}": list(found) for figure, found in figures.items()}
    further = {**part_columns(scored), **judged}
    columns = {"reward": scored.values, **further}
    table.write(
        folder,
        ({**row, **{name: found[number] for name, found in columns.items()}} for number, row in enumerate(rows)),
        dict.fromkeys(further, pa.float64()),
    )
    prompts = len({row["prompt_id"] for row in rows})
    unscored = sum(score is None for score in scored.values)
    counts = {"prompts": prompts, "unscored": unscored, "scored_in_part": scored.truncated}
    return count_finished(rows) | counts | dict(scored.counts)


def write_held_out(job: Job, loaded: "Loaded") -> list[Sample]:
    """A model's fresh samples on the held-out prompts."""
    prompts = held_out(job.inputs["prompts"])
    sampling = for_any_model(job.config.sampling)
    return draw(job, loaded, prompts, job.config.evaluation.samples_per_prompt, "eval", sampling)
