"""Stage `report`: the aligned model against the base on the same held-out prompts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from alignment.config import AlignConfig, RewardPart
from alignment.config.policy import common_random_numbers, for_any_model
from alignment.kinds import METRICS, REWARDS
from alignment.rows import (
    ACCEPTED,
    ANCHORED,
    EVALUATED,
    GOLD,
    JUDGED_BY,
    MEASURED,
    OF_REALISM,
    PART,
    RANKED,
    REALISM,
    REPORT,
    SAMPLE_TEXTS,
    TASKS,
    Sample,
)
from alignment.stages.job import Counts, Job
from alignment.stages.sides import count_held_out, held_out
from alignment.stages.sources import pairs_are_given, pairs_are_sampled, pairs_are_scored
from alignment.stages.stage import stage
from alignment.stages.store import write_json

if TYPE_CHECKING:  # it brings numpy
    from alignment.judging.measured import Measured
    from alignment.judging.report import Drift, Engines, Preferences, RealTexts, RewardResult, TaskResult


OF_OTHER_STAGES = {"anchor", "gold", "gold_fraction", "real_texts", "real_column", "real_rows", "tasks", "task_rows"}
"""Fields of `evaluation` that decide what other stages find, which is what is read here."""


def engines_of(config: AlignConfig) -> dict[str, Any]:
    """What drew the samples, as `Engines` has it; nothing where it was this project's own engine."""
    training = config.sampling.engine if pairs_are_sampled(config) else ""
    evaluation = for_any_model(config.sampling).engine
    if {training, evaluation} <= {"local", ""}:
        return {}
    shared = common_random_numbers(config.sampling)
    return {"training": training, "evaluation": evaluation, "common_random_numbers": shared}


@stage(
    title="compare",
    needs=lambda c: (
        "base",
        "reward",
        "prompts",
        "before",
        "after",
        "validation",
        *(["drift"] if c.evaluation.anchor else []),
        *(["ranking"] if pairs_are_given(c) else []),
        *(["gold"] if c.evaluation.gold else []),
        *(["regression"] if c.evaluation.tasks else []),
        *(["realism"] if c.evaluation.real_texts else []),
    ),
    reads=lambda c: (
        {"evaluation": c.evaluation.model_dump(exclude=OF_OTHER_STAGES), "seed": c.seed}
        | ({"parts": [(part.name, part.weight) for part in c.reward.parts]} if c.reward.parts else {})
        | ({"beta": c.dpo.beta} if pairs_are_given(c) else {})
        | ({} if pairs_are_scored(c) else {"winners": "of other scores"})
        | ({"engines": engines} if (engines := engines_of(c)) else {})
    ),
    makes=lambda c: f"{c.evaluation.bootstrap:,} bootstrap resamples",
    uses=lambda _: [(METRICS, name) for name in METRICS.names()],
    libraries=("numpy", "evaluate"),
)
def report(job: Job) -> Counts:
    """The evaluation's report, and the table of sample texts."""
    from alignment.judging import comparison, hf_metrics
    from alignment.judging.measured import from_rows
    from alignment.judging.report import SampleRow

    rows = {name: EVALUATED.read(job.inputs[name]) for name in ("before", "after")}
    base, aligned = (_compared(job, side, from_rows(rows[side])) for side in ("before", "after"))
    found = comparison.compare(
        base,
        aligned,
        metrics=hf_metrics.all_metrics(),
        winners_mean=_winners_mean(job),
        config=job.config.evaluation,
        seed=job.config.seed,
    ).model_copy(
        update={
            "base_validation_perplexity": _trained(job, "base").get("validation_perplexity"),
            "reward_validation_accuracy": _trained(job, "reward").get("validation_accuracy"),
            "drift": _drift(job, rows),
            "preferences": _preferences(job),
            "tasks": _tasks(job),
            "real_texts": _real_texts(job),
            "engines": _engines(job),
            "precision": job.config.evaluation.precision,
            "parts": _rewards(job, job.config.reward.parts, rows, PART, (base, aligned)),
            "gold": _rewards(job, job.config.evaluation.gold, _gold(job), JUDGED_BY, (base, aligned)),
        }
    )
    firsts = [(old, new) for old, new in zip(rows["before"], rows["after"], strict=True) if old["index"] == 0][
        : job.config.evaluation.table_rows
    ]
    prompts = {row["prompt_id"]: row for row in held_out(job.inputs["prompts"])}
    table = [
        SampleRow(
            prompt=old["prompt"],
            base=old["text"],
            base_reward=old["reward"],
            aligned=new["text"],
            aligned_reward=new["reward"],
            prompt_ids=tuple(old["prompt_ids"]),
            messages=prompts[old["prompt_id"]]["messages"],
            columns=prompts[old["prompt_id"]]["columns"],
        )
        for old, new in firsts
    ]
    (job.out / REPORT).write_text(found.model_dump_json(indent=2), encoding="utf-8")
    write_json(job.out / SAMPLE_TEXTS, [row.model_dump() for row in table])
    return {"prompts": found.prompts, "samples": len(rows["after"])}


def _winners_mean(job: Job) -> float | None:
    """The mean reward of the pairs' chosen texts; None where the pairs have no scores, or others than the reward's."""
    if not pairs_are_scored(job.config):
        return None
    scores = ACCEPTED.whole(job.inputs["validation"], ["chosen_score"]).column(0).drop_null()
    return float(scores.to_numpy().mean()) if len(scores) else None


def _rewards(
    job: Job,
    several: tuple[RewardPart, ...],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    prefix: str,
    measured: tuple["Measured", "Measured"],
) -> tuple["RewardResult", ...]:
    """What each of several rewards says of both models' samples; its scores are the column of its name behind `prefix`.

    Parts of a sum, which are of the reward itself, have weights.
    """
    from alignment.judging import comparison

    return tuple(
        comparison.reward_result(
            part.name,
            *measured,
            (
                [row[f"{prefix}{part.name}"] for row in rows["before"]],
                [row[f"{prefix}{part.name}"] for row in rows["after"]],
            ),
            weight=part.weight if prefix == PART else None,
            config=job.config.evaluation,
            seed=job.config.seed,
        ).model_copy(update={"note": REWARDS.origin(part.kind).options.get("note", "")})
        for part in several
    )


def _gold(job: Job) -> dict[str, list[Any]]:
    """The rows of second judges by side; none without any."""
    rows = GOLD.read(job.inputs["gold"]) if "gold" in job.inputs else []
    return {side: [row for row in rows if row["side"] == side] for side in ("before", "after")}


def _compared(job: Job, side: str, measured: "Measured") -> "Measured":
    """One model's samples with what they are beside real texts, where there are some."""
    if "realism" not in job.inputs:
        return measured
    table = pq.read_table(job.inputs["realism"] / REALISM.file)
    columns = {name: table[name].to_numpy()[table["side"].to_numpy() == side] for name in OF_REALISM}
    return replace(measured, judged={**measured.judged, **columns})


def _real_texts(job: Job) -> "RealTexts | None":
    """What real texts are to the model of others of them; None where there are none."""
    if "realism" not in job.inputs:
        return None
    from alignment.judging.report import RealTexts

    return RealTexts.model_validate_json((job.inputs["realism"] / MEASURED).read_text(encoding="utf-8"))


def _engines(job: Job) -> "Engines | None":
    """What drew the samples, where that is to be said."""
    from alignment.judging.report import Engines

    found = engines_of(job.config)
    return Engines.model_validate(found) if found else None


def _drift(job: Job, rows: dict[str, list[Sample]]) -> "Drift | None":
    """How far both models are from the anchor, under which the drift's log-probs are; None without one."""
    from alignment.judging import comparison
    from alignment.judging.measured import from_rows

    if "drift" not in job.inputs:
        return None
    under = ANCHORED.read(job.inputs["drift"])
    sides = {
        side: from_rows(
            [
                {**row, "base_logprob": found["base_logprob"]}
                for row, found in zip(rows[side], (each for each in under if each["side"] == side), strict=True)
            ]
        )
        for side in ("before", "after")
    }
    return comparison.drift(from_rows(EVALUATED.read(job.inputs["drift"])), sides["before"], sides["after"])


def _preferences(job: Job) -> "Preferences | None":
    """How the aligned model ranks held-out pairs; None where no pairs were given."""
    if "ranking" not in job.inputs:
        return None
    from alignment.judging.preferences import preferences

    columns = pq.read_table(job.inputs["ranking"] / RANKED.file)
    policy, base = (
        tuple(columns[f"{model}_{side}"].to_numpy() for side in ("chosen", "rejected")) for model in ("policy", "base")
    )
    return preferences(
        policy,
        base,
        beta=job.config.dpo.beta,
        left_out=count_held_out(job.inputs["prompts"]) - len(columns),
        config=job.config.evaluation,
        seed=job.config.seed,
    )


def _tasks(job: Job) -> "tuple[TaskResult, ...]":
    """What both models reach on tasks of lm-eval; nothing where none are named."""
    if "regression" not in job.inputs:
        return ()
    from alignment.judging.report import TaskResult

    rows = json.loads((job.inputs["regression"] / TASKS).read_text(encoding="utf-8"))
    return tuple(TaskResult.model_validate(row) for row in rows)


def _trained(job: Job, stage: str) -> dict[str, float]:
    """What was measured when a model was trained here; nothing where it was given."""
    path = job.inputs[stage] / MEASURED
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found
