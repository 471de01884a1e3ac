"""The harness: trainings of base and reward model, stopped between two steps and resumed; one device per process."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from alignment.config import BaseConfig, RewardConfig
from alignment.errors import Interrupted
from alignment.training import harness
from alignment.training.reward import train_reward
from alignment.training.sft import train_base

SIZE = {"layers": 1, "width": 16, "heads": 2, "context": 16, "batch_size": 8, "learning_rate": 1e-2}
STEPS = 60  # rows come every 50 steps, and one at the end
TEXTS = ["a fine film", "the plot was fine", "a dull film", "the acting was dull"] * 10

Trained = tuple[Any, dict[str, float]]
Train = Callable[..., Trained]


@pytest.fixture
def base(tiny_tokenizer: Any) -> Train:
    """`base(work, steps=..., progress=...)`."""

    def train(work: Path, *, steps: int = STEPS, **others: Any) -> Trained:
        return train_base(TEXTS, tiny_tokenizer, BaseConfig(**SIZE, steps=steps), seed=0, work=work, **others)

    return train


@pytest.fixture
def reward(tiny_tokenizer: Any) -> Train:
    """`reward(work, steps=..., progress=...)`."""

    def train(work: Path, *, steps: int = STEPS, **others: Any) -> Trained:
        config = RewardConfig(**SIZE, min_opening=4, steps=steps)
        return train_reward(TEXTS, [1, 1, 0, 0] * 10, tiny_tokenizer, config, seed=0, work=work, **others)

    return train


def asking_at(step: int) -> Callable[[int, int], None]:
    def ask(done: int, _: int) -> None:
        if done == step:
            raise Interrupted("asked to")

    return ask


def checkpoints(work: Path) -> list[str]:
    return sorted(path.name for path in work.glob("checkpoint-*"))


def assert_same(one: Trained, two: Trained) -> None:
    """To the bit."""
    weights, others = one[0].model.state_dict(), two[0].model.state_dict()
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())
    assert one[1] == two[1]


def test_an_interrupted_base_is_resumed_and_ends_as_if_undisturbed(base: Train, tmp_path: Path) -> None:
    undisturbed = base(tmp_path / "undisturbed")
    with pytest.raises(Interrupted, match="asked to"):
        base(tmp_path / "work", progress=asking_at(30))
    assert checkpoints(tmp_path / "work") == ["checkpoint-50"]
    steps: list[int] = []
    resumed = base(tmp_path / "work", progress=lambda done, _: steps.append(done))
    assert steps == list(range(51, STEPS + 1))
    assert_same(resumed, undisturbed)


def test_an_interrupted_reward_model_is_resumed(reward: Train, tmp_path: Path) -> None:
    """Not to the bit: dropout and the lengths of its openings are drawn anew."""
    with pytest.raises(Interrupted, match="asked to"):
        reward(tmp_path / "work", progress=asking_at(30))
    assert checkpoints(tmp_path / "work") == ["checkpoint-50"]
    steps: list[int] = []
    _, measured = reward(tmp_path / "work", progress=lambda done, _: steps.append(done))
    assert steps == list(range(51, STEPS + 1))
    assert measured == {"validation_accuracy": 1.0}


def test_a_row_that_is_too_far_is_not_waited_for(base: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = base(tmp_path / "undisturbed", steps=12)
    monkeypatch.setattr("alignment.training.harness.PATIENCE", -1.0)
    with pytest.raises(Interrupted):
        base(tmp_path / "work", steps=12, progress=asking_at(5))
    assert checkpoints(tmp_path / "work") == ["checkpoint-5"]
    assert_same(base(tmp_path / "work", steps=12), undisturbed)


@pytest.mark.parametrize("kind", ["base", "reward"])
def test_a_short_training_that_reaches_its_end_meanwhile_is_not_interrupted(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Its only row is the last step's; the end of a training is worth more than a checkpoint of it."""
    train = request.getfixturevalue(kind)
    undisturbed = train(tmp_path / "undisturbed", steps=12)
    assert_same(train(tmp_path / "work", steps=12, progress=asking_at(5)), undisturbed)
    assert checkpoints(tmp_path / "work") == []


def test_one_process_trains_on_one_gpu_however_many_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Eight(TrainingArguments):
        @cached_property
        def _setup_devices(self) -> torch.device:
            self._n_gpu = 8
            return torch.device("cpu")

    monkeypatch.setattr(harness, "TrainingArguments", Eight)
    found = harness.arguments(tmp_path, harness.Settings(1, 3, 1.0, 0, 1, 1), seed=0)
    assert (found.n_gpu, found.train_batch_size) == (1, 3)
