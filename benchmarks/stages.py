"""The stages of the pipeline on synthetic tables of any size, each in a folder of its own, without a scheduler."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignment.config import AlignConfig, build_config
from alignment.parquet import GROUP_ROWS, Table
from alignment.rows import ACCEPTED, MODEL, PAIRS, PROMPTS, REFERENCED, SAMPLES, SCORES
from alignment.stages.job import Job

VOCABULARY, WIDTH, LAYERS, CONTEXT = 1_000, 64, 2, 64
PROMPT_TOKENS, COMPLETION_TOKENS = 8, 24
PER_PROMPT = 4
BATCH = 16  # pairs a step
TINY = 64  # items of the run that warms up

SETTINGS: dict[str, dict[str, Any]] = {
    "sampling": {"samples_per_prompt": PER_PROMPT, "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS, "top_k": 0},
    "validation": {
        "min_gap": 0.0,
        "min_tokens": 1,
        "min_chars": 1,
        "chosen_longer_min": 0.0,
        "chosen_longer_max": 1.0,
        "max_length_correlation": 1.0,
        "max_quarantined": 1.0,
        "min_pairs": 1,
        "min_distinct_prompts": 1,
    },
    "dpo": {"batch_size": BATCH, "stop_chosen_drop": 0, "checkpoint_every": 1_000_000},
}

TABLES: dict[str, Table[Any]] = {
    "prompts": PROMPTS,
    "samples": SAMPLES,
    "scores": SCORES,
    "pairs": PAIRS,
    "validation": ACCEPTED,
    "reference": REFERENCED,
}
"""What the stages leave."""


def settings(count: int) -> AlignConfig:
    """The configuration of a run on so many prompts, of which each gives a pair."""
    steps = max(1, count // BATCH)
    dpo = SETTINGS["dpo"] | {"steps": steps, "warmup_steps": 1, "log_every": min(10, steps)}
    return build_config(SETTINGS | {"dpo": dpo, "prompts": {"count": max(2, count), "eval_count": 2}})


def prepare(
    root: str, name: str, counts: list[int], per_prompt: int = PER_PROMPT, exact: bool = False
) -> Callable[[], None]:
    """Write the models, and for each count what the stage needs; `exact` spares the reference its forward passes."""

    def work() -> None:
        folder = Path(root)
        write_models(folder)
        for count in sorted({TINY, *counts}):
            for table in TABLES:
                write_table(folder / str(count) / table, table, count, per_prompt, exact=exact)
            if name == "policy":  # which compares what its pairs say of the reference
                into(folder, "reference", count, folder / str(count) / "made")
                shutil.rmtree(folder / str(count) / "reference")
                (folder / str(count) / "made" / "done").rename(folder / str(count) / "reference")

    return work


def write_models(folder: Path) -> None:
    """A tiny base and a tiny classifier of random weights."""
    from benchmarks import models  # which brings torch

    base = models.gpt2(LAYERS, WIDTH, 2, VOCABULARY, CONTEXT)
    base.config.eos_token_id = VOCABULARY - 1
    reward = models.distilbert(LAYERS, WIDTH, 2, VOCABULARY, CONTEXT)
    for name, model, begins in (("base", base, False), ("reward", reward, True)):
        model.save_pretrained(folder / name / MODEL)
        models.tokenizer(VOCABULARY, CONTEXT, begins=begins).save_pretrained(folder / name / MODEL)


def write_table(folder: Path, name: str, count: int, per_prompt: int = PER_PROMPT, *, exact: bool = False) -> None:
    """What a stage leaves of so many prompts; two more are held out."""
    folder.mkdir(parents=True)
    kind = name if name == "prompts" else "samples" if name in ("samples", "scores") else "pairs"
    with TABLES[name].writer(folder) as writer:
        for made in blocks(count, per_prompt, exact):
            writer.append(made[kind])
        if name == "prompts":
            held_out = next(blocks(2, per_prompt, exact, first=count))["prompts"]
            writer.append(held_out.set_column(3, "split", pa.array(["eval"] * 2)))


def blocks(count: int, per_prompt: int, exact: bool, first: int = 0) -> Iterator[dict[str, pa.Table]]:
    """Prompts `first` and on with their samples and their pairs, block by block; prompts differ, completions recur."""
    draws = np.random.default_rng(0)
    completions = draws.integers(1, VOCABULARY - 1, (GROUP_ROWS, per_prompt, COMPLETION_TOKENS))
    rewards = draws.normal(size=(GROUP_ROWS, per_prompt))
    for start in range(first, first + count, GROUP_ROWS):
        rows = min(GROUP_ROWS, first + count - start)
        yield block(start, completions[:rows], rewards[:rows], exact)


def block(start: int, completions: Any, rewards: Any, exact: bool) -> dict[str, pa.Table]:
    """Prompts from number `start` on with completions [N, samples, tokens] and rewards [N, samples]: three tables."""
    rows, per_prompt, _ = completions.shape
    numbers = start + np.arange(rows)
    digits = [1 + numbers // 100**place % 100 for place in range(4)]
    ids = np.stack([*digits, *digits], 1)
    prompt, prompt_id = spelled(ids), pc.binary_join_element_wise("prompt", pa.array(numbers).cast("string"), "-")
    whole = [spelled(completions[:, number]) for number in range(per_prompt)]
    texts = [pc.binary_join_element_wise(prompt, text, " ") for text in whole]
    about = {"prompt_id": prompt_id, "prompt": prompt, "prompt_ids": lists(ids)}
    logprobs = -7.0 * COMPLETION_TOKENS + rewards
    samples = [
        about
        | {
            "index": pa.repeat(pa.scalar(number, pa.int64()), rows),
            "ids": lists(completions[:, number]),
            "text": texts[number],
            "completion": pc.binary_join_element_wise("", whole[number], " "),
            "finished": pa.repeat(False, rows),
            "logprob": pa.array(logprobs[:, number]),
            "exact_logprob": pa.repeat(exact, rows),
            "reward": pa.array(rewards[:, number]),
        }
        for number in range(per_prompt)
    ]
    in_turns = np.arange(rows * per_prompt).reshape(per_prompt, rows).T.ravel()  # samples of a prompt stand together
    return {
        "prompts": pa.table(
            about | {"split": pa.repeat("train", rows), "messages": pa.repeat("", rows), "columns": pa.repeat("", rows)}
        ),
        "samples": pa.concat_tables(map(pa.table, samples)).take(pa.array(in_turns)),
        "pairs": pa.table(about | pairs(prompt_id, texts, completions, rewards, logprobs, exact)),
    }


def pairs(prompt_id: Any, texts: Any, completions: Any, rewards: Any, logprobs: Any, exact: bool) -> dict[str, Any]:
    """The other columns of pairs of each prompt's first two samples, and those that the reference adds."""
    rows = len(rewards)
    length = pa.repeat(pa.scalar(COMPLETION_TOKENS, pa.int64()), rows)
    found: dict[str, Any] = {"pair_id": pc.binary_join_element_wise(prompt_id, "0", "-")}
    for number, side in enumerate(("chosen", "rejected")):
        found |= {
            side: texts[number],
            f"{side}_ids": lists(completions[:, number]),
            f"{side}_score": pa.array(1.0 - number + 0 * rewards[:, number]),
            f"{side}_tokens": length,
            f"{side}_logprob": pa.array(logprobs[:, number]),
            f"reference_{side}": pa.array(logprobs[:, number]),
        }
    return found | {
        "gap": pa.repeat(1.0, rows),
        "strategy": pa.repeat("best_vs_worst", rows),
        "exact_logprob": pa.repeat(exact, rows),
        "fault": pa.repeat("", rows),
        "reference": pa.repeat("base", rows),
    }


def lists(ids: Any) -> pa.Array:
    """Token ids [N, length] as lists."""
    rows, length = ids.shape
    return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * length, ids.ravel().astype(np.int32))


def spelled(ids: Any) -> pa.Array:
    """The texts of token ids [N, length]."""
    words = np.array([f"w{number}" for number in range(VOCABULARY)], object)
    return pa.array([" ".join(row) for row in words[ids]])


def stage(root: str, name: str, count: int) -> Callable[[], dict[str, int]]:
    """The work of a stage on the tables of so many prompts; a run on few of them has warmed it up."""
    run(Path(root), name, TINY)
    return lambda: run(Path(root), name, count)


def run(root: Path, name: str, count: int) -> dict[str, int]:
    """Run a stage into a folder that is removed; returns its counts."""
    out = root / f"out-{name}-{count}"
    try:
        return into(root, name, count, out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def into(root: Path, name: str, count: int, out: Path) -> dict[str, int]:
    """Run a stage, in its parts where it has some, into a folder: the result in `done`."""
    from alignment.stages.parts import fill, summed
    from alignment.stages.store import StageRef
    from tasks.pipeline import PIPELINE

    wanted, config = PIPELINE[name], settings(count)
    inputs = {
        need: root / need if need in ("base", "reward") else root / str(count) / need for need in wanted.needs(config)
    }

    def job(folder: str, **others: Any) -> Job:
        made, work = out / folder, out / f"{folder}-work"
        made.mkdir(parents=True)
        work.mkdir()
        digests = dict.fromkeys(inputs, "0" * 64)
        return Job(config, inputs, made, work, out / "kept", digests, read=wanted.reads(config), **others)

    parts: list[Path] = []
    counts: list[dict[str, int]] = []
    if wanted.parts:
        counts_of = {"train": count, "built": count}
        refs = {
            need: StageRef(stage=need, key="", path=Path(), digest="", counts=counts_of, seconds=0.0) for need in inputs
        }
        for part in wanted.parts.split(config, refs):
            ready = job(f"part-{part[0]}", part=part)
            counts.append(fill(wanted, ready))
            parts.append(ready.out)
    return fill(wanted, job("done", parts=tuple(parts), counted=summed(counts)))
