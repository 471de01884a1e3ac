"""The memory that a stage takes beside what the plan says of it, each in a process of its own.

    python -m benchmarks.memory
    python -m benchmarks.memory --model FOLDER --pairs 8 --tokens 128

By default a model of random weights in SmolLM2-135M's shape, in fp32. Measured is the most that the process has, less
what it has after a tiny model went the same way, so with all imports; texts are of the greatest length, as the plan
takes them to be. A training's note has the CPU-seconds of its last step.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from alignment import capacity, memory, needs
from alignment.config import AlignConfig, build_config
from benchmarks.measure import MB, Row, Spent, cpu_seconds, in_process, run

STEPS = 3
TARGET = "0.8–1.2"
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "full training": ("policy", {}),
    "LoRA training": ("policy", {"adapter": "lora", "learning_rate": 2e-4}),
    "full training, gradient checkpointing": ("policy", {"gradient_checkpointing": True}),
    "sampling": ("samples", {}),
    "scoring": ("reference", {}),
}
"""The stage that each is, and the settings of the training."""


def config_of(name: str, pairs: int, tokens: int) -> AlignConfig:
    """The configuration of one setting."""
    stage, dpo = SETTINGS[name]
    rows = {"samples_per_prompt": 4, "shard_prompts": pairs, "total_tokens": tokens}
    return build_config(
        {
            "sampling": rows | ({"batch_tokens": 4 * pairs * tokens} if stage != "policy" else {}),
            "dpo": {"loss": "sigmoid", "batch_size": pairs, "steps": STEPS, "warmup_steps": 0, "log_every": 1}
            | {"learning_rate": 1e-6, "stop_chosen_drop": 0, "checkpoint_every": 1_000}
            | dpo,
        }
    )


def prepare(name: str, folder: str, tiny: str, pairs: int, tokens: int) -> Callable[[], list[float]]:
    """The work of one setting, after it was done with a tiny model."""
    config = config_of(name, pairs, tokens)
    work = {"policy": _train, "samples": _sample, "reference": _score}[SETTINGS[name][0]]
    work(tiny, config)
    return lambda: work(folder, config)


def _train(folder: str, config: AlignConfig) -> list[float]:
    """The stage `policy` on pairs of random tokens; the CPU-seconds of each step."""
    from alignment import adapters, models
    from alignment.training import adapter, dpo
    from benchmarks import train
    from benchmarks.models import PROMPT_TOKENS
    from benchmarks.models import pairs as pairs_of

    loaded = models.load_base(folder)
    lora = config.dpo.adapter != "none"
    loaded = adapter.attach(loaded, config.dpo, 0) if lora else loaded
    longest = config.sampling.total_tokens - PROMPT_TOKENS
    given = pairs_of(loaded.conventions.embeddings or 2, config.dpo.batch_size, vary=False, longest=longest)
    rows = [*train.with_reference(loaded.model, given)] * STEPS
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as work:
        dpo.train_policy(loaded, rows, config, work=Path(work, "work"), progress=lambda *_: ends.append(cpu_seconds()))
        if lora:
            adapters.save(loaded.model, Path(work, "adapter"))
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


def write_model(folder: Path, *, tiny_of: int = 0) -> None:
    """A model of random weights whose texts the last token id ends; tiny, where another's vocabulary is given."""
    from benchmarks import models

    model = models.llama(1, 8, 16, 2, 1, tiny_of) if tiny_of else models.smollm2_135m()
    model.config.eos_token_id = model.generation_config.eos_token_id = model.config.vocab_size - 1
    model.save_pretrained(folder)
    models.tokenizer(model.config.vocab_size).save_pretrained(folder)


def measure(asked: argparse.Namespace) -> Iterator[Row]:
    """A row for each setting."""
    with tempfile.TemporaryDirectory() as work:
        folder = asked.model or Path(work, "model")
        if asked.model is None:
            write_model(folder)
        shape = capacity.shapes(build_config({"base": {"model": str(folder)}}))["base"]
        write_model(Path(work, "tiny"), tiny_of=shape.vocabulary)
        for name in SETTINGS:
            if asked.only in name:
                yield compare(name, folder, Path(work, "tiny"), shape, asked)


def compare(name: str, folder: Path, tiny: Path, shape: memory.Shape, asked: argparse.Namespace) -> Row:
    """What one setting takes, beside the plan."""
    given = {"pairs": asked.pairs, "tokens": asked.tokens}
    spent: Spent = in_process("benchmarks.memory:prepare", name=name, folder=str(folder), tiny=str(tiny), **given)
    needed = needs.need(SETTINGS[name][0], config_of(name, **given), {"base": shape}, "cpu")
    took, planned = spent.peak - spent.before, (needed.peak if needed else 0) / MB
    note = f"{spent.result[-1]:.1f} CPU-seconds a step" if spent.result else ""
    return Row(name, "the plan", took, planned, took / planned, TARGET, "MB", note=note)


def flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--model", type=Path, help="folder of a model [random weights in SmolLM2-135M's shape]")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of a batch; four times as many texts [4]")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a prompt and a completion together [64]")


if __name__ == "__main__":
    run(__doc__, measure, flags)
