"""The datum's way: each function reads the folders of earlier stages, calls the pure part, and fills its own folder.

A stage returns its counts. Functions of this file are the only ones of the library that touch files.
"""

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignment.config import AlignConfig
from alignment.errors import PairsError
from alignment.store import write_json

logger = logging.getLogger(__name__)

Counts = dict[str, int]
Rows = list[dict[str, Any]]


def _silent(done: int, total: int) -> None:
    """The progress report of someone who does not look."""


@dataclass(frozen=True)
class Job:
    """What a stage works with: config, its parents' folders, its own, one that survives a crash, and reports."""

    config: AlignConfig
    inputs: Mapping[str, Path]
    out: Path
    work: Path
    progress: Callable[[int, int], None] = _silent
    on_row: Callable[[dict[str, float]], None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def texts(job: Job) -> Counts:
    """Labelled texts -> texts.parquet."""
    from alignment.texts import load_texts

    rows, counts = load_texts(job.config.data, job.config.seed, cache=job.work)
    write_rows(job.out / "texts.parquet", rows)
    return counts


def base(job: Job) -> Counts:
    """The base model, trained here or brought in -> model/."""
    from alignment import models, sft, tokenizer

    config = job.config.base
    if config.model != "train":
        models.copy(config.model, job.out / "model", "base", config.revision)
        return {"brought_in": 1}
    rows = read_rows(job.inputs["texts"] / "texts.parquet", ["text"])
    found = [row["text"] for row in rows]
    loaded, measured = sft.train_base(
        found,
        tokenizer.train_tokenizer(found, config.vocab_size, config.context),
        config,
        seed=job.config.seed,
        work=job.work,
        progress=job.progress,
    )
    models.save(loaded, job.out / "model")
    write_json(job.out / "metrics.json", measured)
    return {"texts": len(found), "steps": config.steps}


def reward(job: Job) -> Counts:
    """The reward model, trained here or brought in -> model/."""
    from alignment import models, tokenizer
    from alignment import reward as rewards

    config = job.config.reward
    if config.model != "train":
        models.copy(config.model, job.out / "model", "reward", config.revision)
        return {"brought_in": 1}
    rows = read_rows(job.inputs["texts"] / "texts.parquet")
    found = [row["text"] for row in rows]
    loaded, measured = rewards.train_reward(
        found,
        [row["label"] for row in rows],
        tokenizer.train_tokenizer(found, job.config.base.vocab_size, config.context),
        config,
        seed=job.config.seed,
        work=job.work,
        progress=job.progress,
    )
    models.save(loaded, job.out / "model")
    write_json(job.out / "metrics.json", measured)
    return {"texts": len(found), "steps": config.steps}


def prompts(job: Job) -> Counts:
    """Texts -> prompts.parquet with both sides."""
    from alignment import prompts as cutting

    config = job.config.prompts
    excluded = cutting.read_ids(config.exclude) if config.exclude else set()
    loaded = _base(job.inputs["base"] / "model")

    def decode(ids: Sequence[int]) -> str:
        return str(loaded.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    if config.mode == "empty":
        found = cutting.empty(loaded.bos_id, config, excluded)
    else:
        rows = read_rows(job.inputs["texts"] / "texts.parquet", ["text"])

        def encode(some: Sequence[str]) -> list[list[int]]:
            ids: list[list[int]] = loaded.tokenizer(list(some), add_special_tokens=False, verbose=False)["input_ids"]
            return ids

        found = cutting.first_tokens([row["text"] for row in rows], encode, decode, config, job.config.seed, excluded)
    write_rows(
        job.out / "prompts.parquet",
        [
            {
                "prompt_id": prompt.id,
                "prompt_ids": list(prompt.ids),
                "prompt": decode(prompt.ids),
                "split": prompt.split,
            }
            for prompt in [*found.train, *found.held_out]
        ],
    )
    return found.counts


def sample_shard(job: Job) -> Counts:
    """The samples of train prompts `options["first"]` to `options["last"]` (excluded) -> samples.parquet."""
    from alignment import models

    rows = [row for row in read_rows(job.inputs["prompts"] / "prompts.parquet") if row["split"] == "train"]
    rows = rows[job.options["first"] : job.options["last"]]
    loaded = _base(job.inputs["base"] / "model", job.config.sampling.precision)
    models.require_context(loaded, job.config.sampling.total_tokens, "sampling.total_tokens")
    drawn = _draw(job, loaded, rows, job.config.sampling.samples_per_prompt, purpose="train")
    write_rows(job.out / "samples.parquet", drawn)
    return _finished(drawn)


def samples(job: Job) -> Counts:
    """All shards, given in order as `options["shards"]` -> samples.parquet."""
    table = pa.concat_tables([pq.read_table(Path(folder) / "samples.parquet") for folder in job.options["shards"]])
    pq.write_table(table, job.out / "samples.parquet")
    return _finished(table.select(["finished"]).to_pylist())


def scores(job: Job) -> Counts:
    """Samples -> scores.parquet, with the reward of each text; counts those that the reward model reads in part."""
    rows = read_rows(job.inputs["samples"] / "samples.parquet")
    found, truncated = _score(job, [row["text"] for row in rows])
    for row, score in zip(rows, found, strict=True):
        row["reward"] = score
    write_rows(job.out / "scores.parquet", rows)
    return {"scored": len(rows), "truncated": truncated}


def pairs(job: Job) -> Counts:
    """Scored samples -> pairs.parquet. Raises PairsError where every candidate tied."""
    from alignment.pairs import pair

    config = job.config.pairs
    prompt_text = {row["prompt_id"]: row["prompt"] for row in read_rows(job.inputs["prompts"] / "prompts.parquet")}
    by_prompt: dict[str, Rows] = {}
    for row in read_rows(job.inputs["scores"] / "scores.parquet"):
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    built: Rows = []
    ties = 0
    for prompt_id, rows in by_prompt.items():
        paired = pair([row["reward"] for row in rows], config.strategy, seed=f"{job.config.seed}:{prompt_id}")
        ties += paired.ties
        built.extend(
            _pair_row(rows[better], rows[worse], prompt_text[prompt_id], config.strategy)
            for better, worse in paired.pairs
        )
    if not built:
        raise PairsError(
            f"pairs: all {ties} candidates tied, so there is nothing to prefer; the reward model gives every text the "
            "same score: check reward.model and reward.positive_class, or draw more varied samples"
        )
    kept = built
    if config.max_pairs and len(built) > config.max_pairs:
        kept = random.Random(job.config.seed).sample(built, config.max_pairs)  # noqa: S311 - reproducible, not secret
    write_rows(job.out / "pairs.parquet", kept)
    return {"candidates": len(built) + ties, "built": len(kept), "ties": ties, "not_needed": len(built) - len(kept)}


def reference(job: Job) -> Counts:
    """Accepted pairs -> pairs.parquet with the reference's log-probs and its hash.

    Samples drawn in fp32 carry the reference's own log-probs already (they agree with a fresh forward to 1e-5);
    others are scored again in fp32.
    """
    from alignment.logprobs import score_completions

    rows = read_rows(job.inputs["validation"] / "accepted.parquet")
    sides = ("chosen", "rejected")
    if job.config.sampling.precision == "fp32":
        found = {side: [row[f"{side}_logprob"] for row in rows] for side in sides}
    else:
        loaded = _base(job.inputs["base"] / "model")
        found = {
            side: score_completions(
                loaded.model,
                [row["prompt_ids"] for row in rows],
                [row[f"{side}_ids"] for row in rows],
                pad_id=loaded.pad_id,
                batch_size=job.config.dpo.batch_size,
                progress=job.progress,
            ).tolist()
            for side in sides
        }
    for index, row in enumerate(rows):
        row["reference_chosen"] = found["chosen"][index]
        row["reference_rejected"] = found["rejected"][index]
        row["reference"] = job.options["reference"]
    write_rows(job.out / "pairs.parquet", rows)
    exact = job.config.sampling.precision == "fp32"
    return {"from_sampling": len(rows) if exact else 0, "scored": 0 if exact else len(rows)}


def policy(job: Job) -> Counts:
    """Pairs with reference log-probs -> the aligned model in model/, and history.json.

    The reference's log-probs are fp32; with `dpo.precision` bf16 the policy's forward pass is rounded, so the margin at
    step 0 is near 0 and not 0.
    """
    from alignment import dpo, models

    _kept_base.cache_clear()
    loaded = models.load_base(job.inputs["base"] / "model")
    columns = ["prompt_ids", "chosen_ids", "rejected_ids", "reference_chosen", "reference_rejected"]
    rows = read_rows(job.inputs["reference"] / "pairs.parquet", columns)
    outcome = dpo.train(
        loaded.model,
        rows,
        job.config.dpo,
        seed=job.config.seed,
        pad_id=loaded.pad_id,
        work=job.work,
        progress=job.progress,
        on_row=job.on_row,
    )
    models.save(loaded, job.out / "model")
    write_json(job.out / "history.json", outcome.history)
    return {"pairs": len(rows), "steps": outcome.steps, "stopped_early": int(outcome.stopped_early)}


def before(job: Job) -> Counts:
    """The base model's fresh samples on the held-out prompts -> samples.parquet."""
    return _evaluate(job, "base")


def after(job: Job) -> Counts:
    """The aligned model's fresh samples on the same prompts, with the same random numbers -> samples.parquet."""
    return _evaluate(job, "policy")


def anchor(job: Job) -> Counts:
    """The first base of all rounds -> model/."""
    from alignment import models

    models.copy(job.config.evaluation.anchor, job.out / "model", "base", "main")
    return {"brought_in": 1}


def drift(job: Job) -> Counts:
    """The anchor's own fresh samples, and its log-probs of both models' -> samples.parquet and drift.json."""
    from alignment import comparison, hf_metrics, models

    sides = {side: read_rows(job.inputs[side] / "samples.parquet") for side in ("before", "after")}
    models.require_same_vocabulary(job.inputs["anchor"] / "model", job.inputs["base"] / "model")
    rows = _write(job, models.load_base(job.inputs["anchor"] / "model", precision=job.config.sampling.precision))
    loaded = models.load_base(job.inputs["anchor"] / "model")
    scored, _ = _score(job, [row["text"] for row in rows])
    for row, score in zip(rows, scored, strict=True):
        row["reward"] = score
    for side in (rows, *sides.values()):
        for row, logprob in zip(side, _logprobs(job, loaded, side), strict=True):
            row["base_logprob"] = logprob
    found = comparison.drift(
        _measured(rows),
        _measured(sides["before"]),
        _measured(sides["after"]),
        metrics=hf_metrics.all_metrics(),
    )
    write_rows(job.out / "samples.parquet", rows)
    write_json(job.out / "drift.json", found.model_dump(mode="json"))
    return _finished(rows)


def report(job: Job) -> Counts:
    """Both sides' samples -> report.json and the table of sample texts, samples.json."""
    from alignment import comparison, hf_metrics
    from alignment.report import Drift, SampleRow

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


def read_rows(path: Path, columns: list[str] | None = None) -> Rows:
    """A Parquet file as a list of dicts."""
    rows: Rows = pq.read_table(path, columns=columns).to_pylist()
    return rows


def write_rows(path: Path, rows: Rows) -> None:
    """A list of dicts as a Parquet file."""
    pq.write_table(pa.Table.from_pylist(rows), path)


def _trained(job: Job, stage: str) -> dict[str, float]:
    """What was measured when a model was trained here; nothing where it was brought in."""
    path = job.inputs[stage] / "metrics.json"
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _base(folder: Path, precision: str = "fp32") -> Any:
    """The base model of the stages that only read it, placed anew: another model may have set the threads since."""
    from alignment.models import place

    loaded = _kept_base(folder, precision)
    place(loaded.model)
    return loaded


@lru_cache(maxsize=1)
def _kept_base(folder: Path, precision: str) -> Any:
    """One base model is kept, so that shards do not load it again and again."""
    from alignment.models import load_base

    return load_base(folder, precision=precision)


def _draw(job: Job, loaded: Any, prompt_rows: Rows, count: int, purpose: str) -> Rows:
    from alignment.sampling import generate, request

    config = job.config.sampling
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
        eos_id=loaded.eos_id,
        pad_id=loaded.pad_id,
        progress=job.progress,
    )
    decoded = loaded.tokenizer.batch_decode(
        [[*row["prompt_ids"], *completion.ids] for (row, _), completion in zip(wanted, drawn, strict=True)],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
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


def _score(job: Job, found: list[str]) -> tuple[list[float], int]:
    """The reward of each text, and how many texts are longer than the reward model reads."""
    from alignment import models
    from alignment import reward as rewards

    loaded = models.load_reward(job.inputs["reward"] / "model")
    column = models.positive_class(loaded.model.config, job.config.reward.positive_class)
    batch_size = job.config.reward.batch_size * 8
    scored: list[float] = rewards.score_texts(
        loaded, found, column=column, batch_size=batch_size, progress=job.progress
    ).tolist()
    return scored, rewards.count_truncated(loaded, found)


def _evaluate(job: Job, writer: str) -> Counts:
    """Fresh samples of one model, its and the base's log-probs of them, rewards and, where asked for, judgements."""
    from alignment import grammar, models

    precision = job.config.sampling.precision
    is_base = writer == "base"
    model_folder = job.inputs[writer] / "model"
    loaded = _base(model_folder, precision) if is_base else models.load_base(model_folder, precision=precision)
    rows = _write(job, loaded)
    exact = precision == "fp32"
    own = [row["logprob"] for row in rows] if exact else _logprobs(job, models.load_base(model_folder), rows)
    of_base = own if is_base else _logprobs(job, _base(job.inputs["base"] / "model"), rows)
    scored, truncated = _score(job, [row["text"] for row in rows])
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
    return _finished(rows) | {"prompts": prompts, "scored_in_part": truncated}


def _write(job: Job, loaded: Any) -> Rows:
    """A model's fresh samples on the held-out prompts."""
    held_out = [row for row in read_rows(job.inputs["prompts"] / "prompts.parquet") if row["split"] == "eval"]
    return _draw(job, loaded, held_out, job.config.evaluation.samples_per_prompt, purpose="eval")


def _logprobs(job: Job, loaded: Any, rows: Rows) -> list[float]:
    """What a model thinks of samples, whoever wrote them."""
    from alignment.logprobs import score_completions

    found: list[float] = score_completions(
        loaded.model,
        [row["prompt_ids"] for row in rows],
        [row["ids"] for row in rows],
        pad_id=loaded.pad_id,
        batch_size=min(64, job.config.sampling.batch_size),
    ).tolist()
    return found


def _measured(rows: Rows) -> Any:
    import numpy as np

    from alignment.comparison import Measured

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


def _finished(rows: Rows) -> Counts:
    finished = sum(bool(row["finished"]) for row in rows)
    return {"samples": len(rows), "finished": finished, "truncated": len(rows) - finished}


def _pair_row(chosen: dict[str, Any], rejected: dict[str, Any], prompt: str, strategy: str) -> dict[str, Any]:
    return {
        "pair_id": f"{chosen['prompt_id']}-{chosen['index']}-{rejected['index']}",
        "prompt_id": chosen["prompt_id"],
        "prompt": prompt,
        "prompt_ids": chosen["prompt_ids"],
        "chosen": chosen["text"],
        "rejected": rejected["text"],
        "chosen_ids": chosen["ids"],
        "rejected_ids": rejected["ids"],
        "chosen_score": chosen["reward"],
        "rejected_score": rejected["reward"],
        "gap": chosen["reward"] - rejected["reward"],
        "chosen_tokens": len(chosen["ids"]),
        "rejected_tokens": len(rejected["ids"]),
        "strategy": strategy,
        "chosen_logprob": chosen["logprob"],
        "rejected_logprob": rejected["logprob"],
    }
