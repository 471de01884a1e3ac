"""The stages that judge a policy: fresh samples of both models on the held-out prompts, the drift, the report."""

import json
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from alignment.stages.inference import base_model, draw, logprobs, rewards_of
from alignment.stages.job import Counts, Job, Rows, count_finished, read_rows, write_rows
from alignment.stages.store import write_json

if TYPE_CHECKING:  # they bring torch and numpy
    from alignment.judging.comparison import Measured
    from alignment.models import Loaded


def before(job: Job) -> Counts:
    """The base model's fresh samples on the held-out prompts -> samples.parquet."""
    return _evaluate(job, "base")


def after(job: Job) -> Counts:
    """The aligned model's fresh samples on the same prompts, with the same random numbers -> samples.parquet."""
    return _evaluate(job, "policy")


def anchor(job: Job) -> Counts:
    """The first base of all rounds -> model/."""
    from alignment import models

    models.copy(job.config.evaluation.anchor, job.out / "model", "anchor", "main")
    return {"brought_in": 1}


def drift(job: Job) -> Counts:
    """The anchor's own fresh samples, and its log-probs of both models' -> samples.parquet and drift.json.

    The anchor takes the base's place here: `base_logprob` is the log-prob under it.
    """
    from alignment import models
    from alignment.judging import comparison, hf_metrics

    sides = {side: read_rows(job.inputs[side] / "samples.parquet") for side in ("before", "after")}
    models.require_same_vocabulary(job.inputs["anchor"] / "model", job.inputs["base"] / "model")
    folder, name = job.inputs["anchor"] / "model", f"evaluation.anchor {job.config.evaluation.anchor}"
    rows = _write(job, models.load_base(folder, precision=job.config.sampling.precision, name=name))
    scored, _ = rewards_of(job, [row["text"] for row in rows])
    for row, score in zip(rows, scored, strict=True):
        row["reward"] = score
    loaded = models.load_base(folder, name=name)
    for side in (rows, *sides.values()):
        for row, logprob in zip(side, logprobs(job, loaded, side), strict=True):
            row["base_logprob"] = logprob
    found = comparison.drift(
        _measured(rows),
        _measured(sides["before"]),
        _measured(sides["after"]),
        metrics=hf_metrics.all_metrics(),
    )
    write_rows(job.out / "samples.parquet", rows)
    write_json(job.out / "drift.json", found.model_dump(mode="json"))
    return count_finished(rows)


def report(job: Job) -> Counts:
    """Both sides' samples -> report.json and the table of sample texts, samples.json."""
    from alignment.judging import comparison, hf_metrics
    from alignment.judging.report import Drift, SampleRow

    rows = {name: read_rows(job.inputs[name] / "samples.parquet") for name in ("before", "after")}
    winners = (
        pq.read_table(job.inputs["validation"] / "accepted.parquet", columns=["chosen_score"]).column(0).to_numpy()
    )
    found = comparison.compare(
        _measured(rows["before"]),
        _measured(rows["after"]),
        metrics=hf_metrics.all_metrics(),
        winners_mean=float(winners.mean()),
        config=job.config.evaluation,
        seed=job.config.seed,
    ).model_copy(
        update={
            "base_validation_perplexity": _trained(job, "base").get("validation_perplexity"),
            "reward_validation_accuracy": _trained(job, "reward").get("validation_accuracy"),
            "drift": Drift.model_validate_json((job.inputs["drift"] / "drift.json").read_text(encoding="utf-8"))
            if "drift" in job.inputs
            else None,
        }
    )
    firsts = [(old, new) for old, new in zip(rows["before"], rows["after"], strict=True) if old["index"] == 0][
        : job.config.evaluation.table_rows
    ]
    table = [
        SampleRow(
            prompt=old["prompt"],
            base=old["text"],
            base_reward=old["reward"],
            aligned=new["text"],
            aligned_reward=new["reward"],
        )
        for old, new in firsts
    ]
    (job.out / "report.json").write_text(found.model_dump_json(indent=2), encoding="utf-8")
    write_json(job.out / "samples.json", [row.model_dump() for row in table])
    return {"prompts": found.prompts, "samples": len(rows["after"])}


def _trained(job: Job, stage: str) -> dict[str, float]:
    """What was measured when a model was trained here; nothing where it was brought in."""
    path = job.inputs[stage] / "metrics.json"
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _evaluate(job: Job, writer: str) -> Counts:
    """Fresh samples of one model, its and the base's log-probs of them, rewards and, where asked for, judgements."""
    from alignment import models
    from alignment.data import grammar

    precision = job.config.sampling.precision
    is_base = writer == "base"
    folder, name = job.inputs[writer] / "model", "the aligned model"
    loaded = base_model(job, precision) if is_base else models.load_base(folder, precision=precision, name=name)
    rows = _write(job, loaded)
    exact = precision == "fp32"
    own = [row["logprob"] for row in rows] if exact else logprobs(job, models.load_base(folder, name=name), rows)
    of_base = own if is_base else logprobs(job, base_model(job), rows)
    scored, truncated = rewards_of(job, [row["text"] for row in rows])
    judged = job.config.evaluation.judge == "grammar"
    for row, mine, bases, score in zip(rows, own, of_base, scored, strict=True):
        row.update(
            logprob=mine,
            base_logprob=bases,
            reward=score,
            grammatical=grammar.grammatical_fraction(row["text"]) if judged else None,
            gold=grammar.sentiment(row["text"]) if judged else None,
        )
    write_rows(job.out / "samples.parquet", rows)
    prompts = len({row["prompt_id"] for row in rows})
    return count_finished(rows) | {"prompts": prompts, "scored_in_part": truncated}


def _write(job: Job, loaded: "Loaded") -> Rows:
    """A model's fresh samples on the held-out prompts."""
    held_out = [row for row in read_rows(job.inputs["prompts"] / "prompts.parquet") if row["split"] == "eval"]
    return draw(job, loaded, held_out, job.config.evaluation.samples_per_prompt, purpose="eval")


def _measured(rows: Rows) -> "Measured":
    import numpy as np

    from alignment.judging.comparison import Measured

    judged = rows[0].get("grammatical") is not None
    return Measured(
        prompt_ids=[row["prompt_id"] for row in rows],
        completions=[row["ids"] for row in rows],
        rewards=np.array([row["reward"] for row in rows]),
        base_logprobs=np.array([row["base_logprob"] for row in rows]),
        policy_logprobs=np.array([row["logprob"] for row in rows]),
        finished=np.array([row["finished"] for row in rows]),
        texts=[row["text"] for row in rows],
        grammatical=np.array([row["grammatical"] for row in rows]) if judged else None,
        gold=np.array([row["gold"] for row in rows]) if judged else None,
    )
