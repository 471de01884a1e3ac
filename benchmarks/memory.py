"""The memory that a stage takes beside what the plan says of it, each in a process of its own.

    python -m benchmarks.memory
    python -m benchmarks.memory --model FOLDER --pairs 8 --tokens 128
    python -m benchmarks.memory --shape 1B --pairs 8 --tokens 512

By default a model of random weights in SmolLM2-135M's shape, in fp32. Texts are of the greatest length, as the plan
takes them to be. On a CPU, measured is the most that the process has, less what it has after a tiny model went the same
way, so with all imports; a training's note has the CPU-seconds of its last step. On a GPU, measured is the most that
tensors took of its memory, and the note has the seconds of the last step, and what the allocator held. There sampling
and scoring fill what is free, so they are left out.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from alignment import capacity, memory, needs
from alignment.config import AlignConfig, build_config
from benchmarks import models as made
from benchmarks.measure import MB, Row, Spent, cpu_seconds, in_process, run

STEPS = 3
TARGET = "0.8–1.2"
LORA: dict[str, Any] = {"dpo.adapter": "lora", "dpo.learning_rate": 2e-4}
BF16: dict[str, Any] = {"dpo.precision": "bf16", "sampling.precision": "bf16"}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "full training": ("policy", {}),
    "LoRA training": ("policy", LORA),
    "full training, gradient checkpointing": ("policy", {"dpo.gradient_checkpointing": True}),
    "sampling": ("samples", {}),
    "scoring": ("reference", {}),
    "LoRA training, base in bf16": ("policy", LORA | BF16 | {"base.load_in": "bf16"}),
    "LoRA training, base in 4 bits": ("policy", LORA | BF16 | {"base.load_in": "4bit"}),
    "full training, bf16": ("policy", BF16),
    "full training, bf16, AdamW in 8 bits": ("policy", BF16 | {"dpo.optimizer": "adamw_8bit"}),
    "LoRA training, base in bf16, gradient checkpointing": (
        "policy",
        LORA | BF16 | {"base.load_in": "bf16", "dpo.gradient_checkpointing": True},
    ),
}
"""The stage that each is, and what it changes of the configuration."""
ON_A_CPU = tuple(name for name, (_, changes) in SETTINGS.items() if "dpo.precision" not in changes)  # all in fp32
ON_A_GPU = tuple(name for name, (stage, _) in SETTINGS.items() if stage == "policy")
SHAPES: dict[str, Callable[[], Any]] = {"135M": made.smollm2_135m, "1B": made.one_billion}


def config_of(name: str, pairs: int, tokens: int) -> AlignConfig:
    """The configuration of one setting."""
    stage, changes = SETTINGS[name]
    rows = {"samples_per_prompt": 4, "shard_prompts": pairs, "total_tokens": tokens}
    nested: dict[str, dict[str, Any]] = {
        "base": {"model": "given"},
        "reward": {"model": "given"},
        "sampling": rows | ({"batch_tokens": 4 * pairs * tokens} if stage != "policy" else {}),
        "dpo": {"loss": "sigmoid", "batch_size": pairs, "steps": STEPS, "warmup_steps": 0, "log_every": 1}
        | {"learning_rate": 1e-6, "stop_chosen_drop": 0, "checkpoint_every": 1_000},
    }
    for field, value in changes.items():
        group, _, leaf = field.partition(".")
        nested[group][leaf] = value
    return build_config(nested)


def prepare(name: str, folder: str, tiny: str, pairs: int, tokens: int) -> Callable[[], dict[str, Any]]:
    """The work of one setting, after it was done with a tiny model: the seconds of its steps, and a GPU's peaks."""
    import torch

    config = config_of(name, pairs, tokens)
    stage, _ = SETTINGS[name]
    work = {"policy": _train, "samples": _sample, "reference": _score}[stage]
    work(tiny, config)

    def measured() -> dict[str, Any]:
        if not torch.cuda.is_available():
            return {"steps": work(folder, config)}
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        steps = work(folder, config)
        return {
            "steps": steps,
            "allocated": (torch.cuda.max_memory_allocated() - before) / MB,
            "held": torch.cuda.max_memory_reserved() / MB,
        }

    return measured


def _clock() -> float:
    """CPU-seconds; on a GPU, seconds, once it has done what it was given."""
    import torch

    if not torch.cuda.is_available():
        return cpu_seconds()
    torch.cuda.synchronize()
    return time.perf_counter()


def _train(folder: str, config: AlignConfig) -> list[float]:
    """The stage `policy` on pairs of random tokens; the seconds of each step but the first."""
    from alignment import adapters, models
    from alignment.training import adapter, dpo
    from benchmarks import train
    from benchmarks.models import PROMPT_TOKENS
    from benchmarks.models import pairs as pairs_of

    loaded = models.load_base(folder, precision=config.base.load_in)
    lora = config.dpo.adapter != "none"
    loaded = adapter.attach(loaded, config.dpo, 0) if lora else loaded
    longest = config.sampling.total_tokens - PROMPT_TOKENS
    given = pairs_of(loaded.conventions.embeddings or 2, config.dpo.batch_size, vary=False, longest=longest)
    rows = [*train.with_reference(loaded.model, given)] * STEPS
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as work:
        dpo.train_policy(loaded, rows, config, work=Path(work, "work"), progress=lambda *_: ends.append(_clock()))
        if lora:
            adapters.save(loaded.model, Path(work, "adapter"))
            if config.base.load_in == "fp32":  # a run merges it into the base as that was given, in memory of its own
                loaded = adapters.merge(loaded)
        models.save(loaded, Path(work, "model"))
    return [later - earlier for earlier, later in pairwise(ends)]


def _sample(folder: str, config: AlignConfig) -> list[float]:
    from alignment import models
    from alignment.kinds import ENGINES
    from alignment.sampling.engine import request
    from benchmarks.models import prompts

    loaded = models.load_base(folder)
    sampling = config.sampling
    rows = prompts(loaded.conventions.embeddings or 2, sampling.shard_prompts)
    ENGINES.get("local")(
        loaded,
        [
            request(row, sampling, seed=0, purpose="train", prompt_id=str(number), index=index)
            for number, row in enumerate(rows)
            for index in range(sampling.samples_per_prompt)
        ],
        sampling,
    )
    return []


def _score(folder: str, config: AlignConfig) -> list[float]:
    from alignment import models
    from alignment.logprobs import score_completions
    from benchmarks.models import PROMPT_TOKENS
    from benchmarks.models import pairs as pairs_of

    loaded, sampling = models.load_base(folder), config.sampling
    given = pairs_of(
        loaded.conventions.embeddings or 2,
        4 * sampling.shard_prompts,
        vary=False,
        longest=sampling.total_tokens - PROMPT_TOKENS,
    )
    score_completions(
        loaded.model,
        [pair["prompt_ids"] for pair in given],
        [pair["chosen_ids"] for pair in given],
        pad_id=loaded.pad_id,
        batch_tokens=sampling.batch_tokens,
    )
    return []


def write_model(folder: Path, *, shape: str = "135M", tiny_of: int = 0) -> None:
    """A model of random weights whose texts the last token id ends; tiny, where another's vocabulary is given."""
    model = made.llama(1, 8, 16, 2, 1, tiny_of) if tiny_of else SHAPES[shape]()
    model.config.eos_token_id = model.generation_config.eos_token_id = model.config.vocab_size - 1
    model.save_pretrained(folder)
    made.tokenizer(model.config.vocab_size).save_pretrained(folder)


def measure(asked: argparse.Namespace) -> Iterator[Row]:
    """A row for each setting."""
    import torch

    with tempfile.TemporaryDirectory() as work:
        folder = asked.model or Path(work, "model")
        if asked.model is None:
            write_model(folder, shape=asked.shape)
        shape = capacity.shapes(build_config({"base": {"model": str(folder)}}))["base"]
        write_model(Path(work, "tiny"), tiny_of=shape.vocabulary)
        for name in ON_A_GPU if torch.cuda.is_available() else ON_A_CPU:
            if asked.only in name:
                yield compare(name, folder, Path(work, "tiny"), shape, asked)


def compare(name: str, folder: Path, tiny: Path, shape: memory.Shape, asked: argparse.Namespace) -> Row:
    """What one setting takes, beside the plan."""
    given = {"pairs": asked.pairs, "tokens": asked.tokens}
    spent: Spent = in_process("benchmarks.memory:prepare", name=name, folder=str(folder), tiny=str(tiny), **given)
    found, stage = spent.result, SETTINGS[name][0]
    on_a_gpu = "allocated" in found
    needed = needs.need(stage, config_of(name, **given), {"base": shape}, "cuda" if on_a_gpu else "cpu")
    took = found["allocated"] if on_a_gpu else spent.peak - spent.before
    planned = (needed.peak if needed else 0) / MB
    note = f"{found['steps'][-1]:.3g} {'' if on_a_gpu else 'CPU-'}seconds a step" if found["steps"] else ""
    note += f"; the allocator held {found['held']:,.0f} MB" if on_a_gpu else ""
    return Row(name, "the plan", took, planned, took / planned, TARGET, "MB", note=note)


def flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--model", type=Path, help="folder of a model [random weights]")
    parser.add_argument("--shape", choices=SHAPES, default="135M", help="of the model of random weights [135M]")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of a batch; four times as many texts [4]")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a prompt and a completion together [64]")


if __name__ == "__main__":
    run(__doc__, measure, flags)
