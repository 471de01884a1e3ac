"""The datum's way to a policy: each function reads the folders of earlier stages, calls the pure part, fills its own.

A stage returns its counts. What follows is in `evaluation`; change code there, and nothing here is computed again.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignment.errors import PairsError
from alignment.stages.inference import base_model, draw, forget_base, rewards_of
from alignment.stages.job import Counts, Job, Rows, count_finished, read_rows, write_rows
from alignment.stages.store import write_json

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded


def texts(job: Job) -> Counts:
    """Labelled texts -> texts.parquet, and what the label column holds -> labels.json."""
    from alignment.data.texts import load_texts

    rows, counts, labels = load_texts(job.config.data, job.config.seed, cache=job.work)
    write_rows(job.out / "texts.parquet", rows)
    write_json(job.out / "labels.json", labels.model_dump())
    return counts


def base(job: Job) -> Counts:
    """The base model, trained here or brought in -> model/."""
    from alignment import models
    from alignment.data import tokenizer
    from alignment.training import sft

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
    from alignment import models
    from alignment.data import tokenizer
    from alignment.rewards import classifier as rewards

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
    """Texts -> prompts.parquet with both sides; each prompt begins as the base's tokenizer begins a text."""
    from alignment import models
    from alignment.data import prompts as cutting

    config = job.config.prompts
    excluded = cutting.read_ids(config.exclude) if config.exclude else set()
    loaded = base_model(job)
    begins, opening = loaded.conventions.begins, loaded.conventions.opening
    longest = len(opening) if config.mode == "empty" else len(begins) + config.tokens_max
    models.require_room(longest, job.config.sampling.total_tokens, loaded)

    def decode(ids: Sequence[int]) -> str:
        return loaded.decode([ids], [True])[0]

    if config.mode == "empty":
        found = cutting.empty(opening, config, excluded)
    else:
        rows = read_rows(job.inputs["texts"] / "texts.parquet", ["text"])
        found = cutting.first_tokens(
            [row["text"] for row in rows], loaded.encode, decode, config, job.config.seed, excluded, begins=len(begins)
        )
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
    rows = [row for row in read_rows(job.inputs["prompts"] / "prompts.parquet") if row["split"] == "train"]
    rows = rows[job.options["first"] : job.options["last"]]
    loaded = base_model(job, job.config.sampling.precision)
    drawn = draw(job, loaded, rows, job.config.sampling.samples_per_prompt, purpose="train")
    write_rows(job.out / "samples.parquet", drawn)
    return count_finished(drawn)


def samples(job: Job) -> Counts:
    """All shards, given in order as `options["shards"]` -> samples.parquet."""
    table = pa.concat_tables([pq.read_table(Path(folder) / "samples.parquet") for folder in job.options["shards"]])
    pq.write_table(table, job.out / "samples.parquet")
    return count_finished(table.select(["finished"]).to_pylist())


def scores(job: Job) -> Counts:
    """Samples -> scores.parquet, with the reward of each text; counts those that the reward model reads in part."""
    rows = read_rows(job.inputs["samples"] / "samples.parquet")
    found, truncated = rewards_of(job, [row["text"] for row in rows])
    for row, score in zip(rows, found, strict=True):
        row["reward"] = score
    write_rows(job.out / "scores.parquet", rows)
    return {"scored": len(rows), "truncated": truncated}


def pairs(job: Job) -> Counts:
    """Scored samples -> pairs.parquet. Raises PairsError where every candidate tied."""
    from alignment.data.pairs import pair

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
        loaded = base_model(job)
        found = {
            side: score_completions(
                loaded.model,
                [row["prompt_ids"] for row in rows],
                [row[f"{side}_ids"] for row in rows],
                pad_id=loaded.pad_id,
                batch_size=job.config.dpo.batch_size,
                name=loaded.name,
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
    from alignment import models
    from alignment.training import dpo

    forget_base()
    loaded = models.load_base(job.inputs["base"] / "model", name=f"base.model {job.config.base.model}")
    columns = ["prompt_ids", "chosen_ids", "rejected_ids", "reference_chosen", "reference_rejected"]
    rows = read_rows(job.inputs["reference"] / "pairs.parquet", columns)
    _require_own_reference(loaded, rows[: job.config.dpo.batch_size])
    outcome = dpo.train(
        loaded.model,
        rows,
        job.config.dpo,
        seed=job.config.seed,
        pad_id=loaded.pad_id,
        work=job.work,
        name=loaded.name,
        progress=job.progress,
        on_row=job.on_row,
    )
    models.save(loaded, job.out / "model")
    write_json(job.out / "history.json", outcome.history)
    return {"pairs": len(rows), "steps": outcome.steps, "stopped_early": int(outcome.stopped_early)}


def _require_own_reference(loaded: "Loaded", rows: Rows) -> None:
    """Raise SelfCheckError unless the policy starts as its reference: what the batch gives, and what the pairs hold."""
    import torch

    from alignment.models import using
    from alignment.selfcheck import SelfCheck, plain_logprob
    from alignment.training.dpo import collate, pair_logps, without_dropout

    def alone(row: int) -> float:
        return plain_logprob(loaded.model, rows[row]["prompt_ids"], rows[row]["chosen_ids"])

    with using(loaded.name, "training"), torch.inference_mode():
        device = loaded.model.device
        batch = {name: tensor.to(device) for name, tensor in collate(rows, loaded.pad_id).items()}
        without_dropout(loaded.model)
        loaded.model.train()  # as it will be: whatever still draws at random shows
        found = pair_logps(loaded.model, batch)[0].chosen.tolist()
        loaded.model.eval()
    lengths = [len(row["chosen_ids"]) for row in rows]
    given = [row["reference_chosen"] for row in rows]
    for stage, values in (("training", found), ("the pairs' reference", given)):
        SelfCheck(stage, loaded.name, loaded.model).logprobs(values, lengths, alone, padded=True)


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
