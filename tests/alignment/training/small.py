"""A training of seconds: pairs, settings, and ways to interrupt it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignment.config import DPOConfig
from alignment.errors import Interrupted as Stopped
from alignment.logprobs import score_completions
from alignment.training import dpo
from alignment.training.protocol import TrainingOutcome

PAD = 0
SMOOTHING = {"sigmoid": 0.1, "hinge": 0.0, "ipo": 0.0, "robust": 0.1, "distill": 0.0}

Pair = dict[str, Any]


class Interrupted(Exception):
    """What a crash looks like from within."""


def make_pairs(model: Any, count: int) -> list[Pair]:
    """Pairs with something to learn, chosen texts hold low ids and rejected ones high; the reference is `model`."""
    draws = np.random.default_rng(0)
    pairs: list[Pair] = [
        {
            "prompt_ids": draws.integers(1, 50, draws.integers(1, 6)).tolist(),
            "chosen_ids": draws.integers(1, 25, draws.integers(2, 8)).tolist(),
            "rejected_ids": draws.integers(25, 50, draws.integers(2, 8)).tolist(),
            "gap": 1 + number % 3 / 2,
        }
        for number in range(count)
    ]
    for side in ("chosen", "rejected"):
        scores = score_completions(
            model,
            [pair["prompt_ids"] for pair in pairs],
            [pair[f"{side}_ids"] for pair in pairs],
            pad_id=PAD,
        )
        for pair, score in zip(pairs, scores, strict=True):
            pair[f"reference_{side}"] = float(score)
    return pairs


def make_config(**changes: Any) -> DPOConfig:
    """Ten pairs in batches of four are three steps an epoch, the last of them half full."""
    settings = {
        "loss": "sigmoid",
        "steps": 12,
        "batch_size": 4,
        "warmup_steps": 2,
        "log_every": 2,
        "checkpoint_every": 4,
    }
    return DPOConfig(**settings | {"stop_chosen_drop": 0.0} | changes)


def train(model: Any, pairs: list[Pair], config: DPOConfig, work: Path, **others: Any) -> TrainingOutcome:
    return dpo.train(model, pairs, config, seed=3, pad_id=PAD, work=work, **others)


def gaps(model: Any, pairs: list[Pair]) -> torch.Tensor:
    with torch.no_grad():
        return dpo.pair_logps(model, dpo.collate(pairs, PAD))[0].logratio_gap


def assert_same_weights(found: Any, expected: Any) -> None:
    """To the bit."""
    for (name, weight), other in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(weight, other), name


def interrupt(model: Any, pairs: list[Pair], config: DPOConfig, work: Path, step: int) -> None:
    """Train until the given step, and crash there."""

    def crash(done: int, _: int) -> None:
        if done == step:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(model, pairs, config, work, progress=crash)


def stop(model: Any, pairs: list[Pair], config: DPOConfig, work: Path, step: int, on_row: Any = None) -> list[int]:
    """Ask the training to stop at the given step; returns the steps at which it was asked."""
    asked: list[int] = []

    def ask(done: int, _: int) -> None:
        asked.append(done)
        if done >= step:
            raise Stopped("asked to")

    with pytest.raises(Stopped, match="asked to"):
        train(model, pairs, config, work, progress=ask, on_row=on_row)
    return asked


def checkpoints(work: Path) -> list[Path]:
    return sorted(work.glob("checkpoint-*"))
