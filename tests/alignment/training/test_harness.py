"""The harness: trainings of base and reward model, stopped between two steps and resumed; one device per process."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainingArguments

from alignment.config import BaseConfig, RewardConfig
from alignment.data.preferences import preference
from alignment.errors import ConfigError, Interrupted
from alignment.models import Loaded
from alignment.training import adapter, harness
from alignment.training.reward import train_reward
from alignment.training.reward_pairs import train_on_pairs
from alignment.training.sft import train_base
from tests.alignment.training.small import Pair, make_config, train

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
        config = RewardConfig(**SIZE, min_opening=1, steps=steps)
        return train_reward(TEXTS, [1, 1, 0, 0] * 10, tiny_tokenizer, config, seed=0, work=work, **others)

    return train


@pytest.fixture
def preferred(tiny_tokenizer: Any) -> Train:
    """`preferred(work, steps=..., progress=...)`: a reward model that is trained on pairs."""
    pairs = [preference({"prompt": f"{n} ", "chosen": "fine fine", "rejected": "dull dull"}) for n in range(40)]

    def train(work: Path, *, steps: int = STEPS, **others: Any) -> Trained:
        config = RewardConfig(**SIZE, trained_on="pairs", steps=steps)
        return train_on_pairs(pairs, tiny_tokenizer, config, seed=0, work=work, **others)[:2]

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


@pytest.mark.parametrize("kind", ["reward", "preferred"])
@pytest.mark.parametrize("interrupted_at", [(2,), (5,), (13,), (3, 9)])
def test_an_interrupted_reward_model_is_resumed_and_ends_as_if_undisturbed(
    kind: str,
    interrupted_at: tuple[int, ...],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has dropout, and openings of random length: within its first epoch of five steps, at its end and beyond."""
    train = request.getfixturevalue(kind)
    undisturbed = train(tmp_path / "undisturbed", steps=20)
    monkeypatch.setattr(harness, "PATIENCE", -1.0)
    for step in interrupted_at:
        with pytest.raises(Interrupted, match="asked to"):
            train(tmp_path / "work", steps=20, progress=asking_at(step))
        assert checkpoints(tmp_path / "work") == [f"checkpoint-{step}"]
    assert_same(train(tmp_path / "work", steps=20), undisturbed)


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


def test_adamw_is_the_fused_one(tmp_path: Path) -> None:
    found = harness.arguments(tmp_path, harness.Settings(1, 3, 1.0, 0, 1, 1), seed=0)
    assert found.optim == "adamw_torch_fused"


def test_rows_are_read_as_they_are_needed(model: Any, pairs: list[Pair], tmp_path: Path) -> None:
    """One step of four of ten pairs, a batch ahead, and the first ones, on which the layout is tried."""

    class Rows(list[Pair]):
        read = 0

        def __getitem__(self, index: Any) -> Any:
            self.read += 1
            return super().__getitem__(index)

        def __iter__(self) -> Any:
            raise AssertionError("the rows are read through")

    rows = Rows(pairs)
    train(model, rows, make_config(steps=1), tmp_path)
    assert rows.read == 4 + 4 + 1


class TestGradientCheckpointing:
    """Activations that are computed again are the same ones."""

    @pytest.mark.parametrize("with_adapter", [False, True])
    def test_the_trained_weights_are_the_same(
        self, pairs: list[Pair], tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path, with_adapter: bool
    ) -> None:
        trained = []
        for number, checkpointing in enumerate((False, True)):
            model = tiny_gpt2(0, width=16)
            config = make_config(gradient_checkpointing=checkpointing, steps=4, adapter_rank=4, learning_rate=1e-2)
            if with_adapter:
                torch.manual_seed(0)
                model = adapter.attach(Loaded(model, tiny_tokenizer), config, 0).model
            outcome = train(model, pairs, config, tmp_path / str(number))
            trained.append((outcome.history, dict(model.named_parameters())))
        (rows, weights), (other_rows, other_weights) = trained
        for row, other in zip(rows, other_rows, strict=True):
            assert row == pytest.approx(other, rel=1e-5)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, other_weights[name], rtol=1e-5, atol=1e-7)

    def test_activations_are_computed_again(self, model: Any, pairs: list[Pair], tmp_path: Path) -> None:
        calls: list[int] = []
        model.transformer.h[0].ln_1.register_forward_hook(lambda *_: calls.append(1))
        train(model, pairs, make_config(steps=1), tmp_path / "kept")
        kept = len(calls)
        train(model, pairs, make_config(steps=1, gradient_checkpointing=True), tmp_path / "again")
        assert len(calls) == 2 * kept + 1

    def test_a_model_without_it_is_told(self, model: Any, pairs: list[Pair], tmp_path: Path) -> None:
        model.supports_gradient_checkpointing = False
        with pytest.raises(ConfigError, match=r"^dpo\.gradient_checkpointing: the model .* set it to false$"):
            train(model, pairs, make_config(gradient_checkpointing=True), tmp_path)


def test_products_are_rounded_while_such_a_policy_is_trained(model: Any, pairs: list[Pair], tmp_path: Path) -> None:
    """In the backward pass too; a GPU alone would round them."""
    seen: list[bool] = []
    matmul = torch.backends.cuda.matmul
    model.lm_head.register_full_backward_hook(lambda *_: seen.append(matmul.allow_tf32))
    model.transformer.h[0].register_full_backward_hook(lambda *_: seen.append(matmul.allow_tf32))
    train(model, pairs, make_config(precision="tf32", steps=1), tmp_path)
    assert seen
    assert all(seen)
    assert not matmul.allow_tf32


def test_between_logged_steps_no_value_of_a_tensor_is_asked_for(model: Any, pairs: list[Pair], tmp_path: Path) -> None:
    """For each of them the host would wait until a GPU has computed all that comes before."""

    class Values(TorchDispatchMode):
        step, asked = 0, set[int]()

        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if operation.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
                self.asked.add(self.step)
            return operation(*args, **(kwargs or {}))

    def follow(done: int, _: int) -> None:
        values.step = done

    with Values() as values:
        train(model, pairs, make_config(steps=6, log_every=3, checkpoint_every=100), tmp_path, progress=follow)
    assert values.asked == {0, 3, 6}  # once at the start
