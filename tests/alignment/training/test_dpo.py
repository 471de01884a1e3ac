"""Training: where it starts, that it learns, that it resumes, and that it stops where it should."""

import copy
import json
import logging
import math
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from alignment.config import DPOConfig, build_config
from alignment.errors import ConfigError, ModelError, SelfCheckError, TrainingError
from alignment.errors import Interrupted as Stopped
from alignment.kinds import LOSSES, TRAINERS
from alignment.logprobs import score_completions
from alignment.models import Loaded
from alignment.training import dpo, harness
from alignment.training.checkpoints import resume_point
from alignment.training.protocol import Row, TrainingOutcome
from tests.alignment.architectures import build

PAD = 0
SMOOTHING = {"sigmoid": 0.1, "hinge": 0.0, "ipo": 0.0, "robust": 0.1}

Pair = dict[str, Any]


class Interrupted(Exception):
    """What a crash looks like from within."""


@pytest.fixture
def model(tiny_gpt2: Callable[..., Any]) -> Any:
    return tiny_gpt2(0, width=16)


@pytest.fixture
def pairs(model: Any) -> list[Pair]:
    return make_pairs(model, 10)


def make_pairs(model: Any, count: int) -> list[Pair]:
    """Pairs with something to learn, chosen texts hold low ids and rejected ones high; the reference is `model`."""
    draws = np.random.default_rng(0)
    pairs: list[Pair] = [
        {
            "prompt_ids": draws.integers(1, 50, draws.integers(1, 6)).tolist(),
            "chosen_ids": draws.integers(1, 25, draws.integers(2, 8)).tolist(),
            "rejected_ids": draws.integers(25, 50, draws.integers(2, 8)).tolist(),
        }
        for _ in range(count)
    ]
    for side in ("chosen", "rejected"):
        scores = score_completions(
            model,
            [pair["prompt_ids"] for pair in pairs],
            [pair[f"{side}_ids"] for pair in pairs],
            pad_id=PAD,
            batch_size=4,
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


class TestStart:
    """Policy and reference are the same model, so every log-ratio is 0."""

    def test_collate_by_hand(self) -> None:
        pair = {
            "prompt_ids": [5],
            "chosen_ids": [6, 7],
            "rejected_ids": [8],
            "reference_chosen": -3,
            "reference_rejected": -4,
        }
        batch = dpo.collate([pair], pad_id=PAD)
        assert batch["ids"].tolist() == [[5, 6, 7], [5, 8, PAD]]
        assert batch["completion"].int().tolist() == [[0, 1, 1], [0, 1, 0]]
        assert batch["reference"].tolist() == [-3, -4]

    @pytest.mark.parametrize(
        ("loss", "expected"),
        [("sigmoid", math.log(2)), ("hinge", 1.0), ("ipo", 25.0), ("robust", math.log(2))],
    )
    def test_objective_by_hand(self, model: Any, pairs: list[Pair], loss: str, expected: float) -> None:
        """β = 0.1: ln 2, 1, (0 − 5)² and (0.9 − 0.1) ln 2 / 0.8."""
        config = make_config(loss=loss, beta=0.1, label_smoothing=SMOOTHING[loss])
        found, _ = dpo.pair_logps(model, dpo.collate(pairs, PAD))
        assert dpo.objective(found, config).tolist() == pytest.approx([expected] * 10, abs=1e-4)

    def test_nll_by_hand(self, model: Any, pairs: list[Pair]) -> None:
        """ln 2 plus w times each pair's NLL per chosen token, which the references' own log-probs give."""
        nlls = [-pair["reference_chosen"] / len(pair["chosen_ids"]) for pair in pairs]
        found, _ = dpo.pair_logps(model, dpo.collate(pairs, PAD))
        assert dpo.objective(found, make_config(nll_weight=0.5)).tolist() == pytest.approx(
            [math.log(2) + 0.5 * nll for nll in nlls], abs=1e-5
        )

    @pytest.mark.parametrize("accumulation", [1, 2])
    def test_the_first_row_of_the_history_is_that_of_the_reference(
        self, model: Any, pairs: list[Pair], tmp_path: Path, accumulation: int
    ) -> None:
        """The first step is measured before it is taken."""
        config = make_config(steps=1, log_every=1, accumulation=accumulation)
        first = train(model, pairs, config, tmp_path).history[0]
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
        for name in ("rewards/margin", "rewards/chosen", "rewards/rejected", "chosen_drop"):
            assert first[name] == pytest.approx(0, abs=1e-5)

    def test_dropout_is_off(self, tiny_gpt2: Callable[..., Any]) -> None:
        """In training mode too, so that policy and reference give one sequence one probability."""
        model = tiny_gpt2(0, width=16, dropout=0.5)
        arguments = ([[5, 6], [7]], [[8, 9, 10], [11]])
        expected = score_completions(model, *arguments, pad_id=PAD, batch_size=2)
        model.train()
        with pytest.raises(SelfCheckError):  # one text would have two probabilities
            score_completions(model, *arguments, pad_id=PAD, batch_size=2)
        dpo.without_dropout(model)
        assert (score_completions(model, *arguments, pad_id=PAD, batch_size=2) == expected).all()


class TestTraining:
    @pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo", "robust"])
    def test_raises_the_margin(self, model: Any, pairs: list[Pair], tmp_path: Path, loss: str) -> None:
        reference = copy.deepcopy(model)
        outcome = train(
            model, pairs, make_config(loss=loss, label_smoothing=SMOOTHING[loss], learning_rate=3e-3), tmp_path
        )
        margins = [row["rewards/margin"] for row in outcome.history]
        assert margins[-1] > margins[0] + 0.1
        assert (gaps(model, pairs) > gaps(reference, pairs)).all()

    def test_history(self, model: Any, pairs: list[Pair], tmp_path: Path) -> None:
        """A row every `log_every` steps and one at the end; `on_row` and `progress` get each."""
        rows: list[Row] = []
        reports: list[tuple[int, int]] = []
        outcome = train(
            model,
            pairs,
            make_config(steps=5),
            tmp_path,
            on_row=rows.append,
            progress=lambda *report: reports.append(report),
        )
        assert outcome.history == rows
        assert [row["step"] for row in rows] == [2, 4, 5]
        assert reports == [(step, 5) for step in range(1, 6)]
        assert (outcome.steps, outcome.stopped_early) == (5, False)
        for row in rows:
            assert row["rewards/margin"] == pytest.approx(row["rewards/chosen"] - row["rewards/rejected"], abs=1e-5)
            assert row["rewards/chosen"] == pytest.approx(-0.5 * row["chosen_drop"], abs=1e-5)
            assert 0 <= row["rewards/accuracy"] <= 1
            assert 0 < row["entropy"] < math.log(50)

    @pytest.mark.parametrize("nll_weight", [0.0, 1.0])
    @pytest.mark.parametrize("loss", LOSSES.names())
    def test_one_batch_of_eight_is_any_split_of_it(
        self,
        model: Any,
        tiny_gpt2: Callable[..., Any],
        tmp_path: Path,
        loss: str,
        nll_weight: float,
    ) -> None:
        """The seed alone gives the order of the pairs, so step by step both see the same eight.

        11 pairs are a step of eight and one of three, which in batches of two are unlike each other: 2 and 1. The
        history tells the loss, and the gradient's norm, of each step; weights are compared by what they predict: the
        keys' biases have no gradient but rounding, which AdamW scales.
        """
        pairs = make_pairs(model, 11)
        settings = {"loss": loss, "label_smoothing": SMOOTHING[loss], "nll_weight": nll_weight, "beta": 0.2}
        settings |= {"steps": 4, "log_every": 1, "max_grad_norm": 0.0, "schedule": "constant", "warmup_steps": 0}
        whole = train(model, pairs, make_config(batch_size=8, **settings), tmp_path / "whole")
        assert len({row["grad_norm"] for row in whole.history}) == 4
        for size in (2, 1):
            other = tiny_gpt2(0, width=16)
            config = make_config(batch_size=size, accumulation=8 // size, **settings)
            for row, expected in zip(
                train(other, pairs, config, tmp_path / str(size)).history, whole.history, strict=True
            ):
                assert row == pytest.approx(expected, rel=1e-4, abs=1e-4)
            torch.testing.assert_close(gaps(other, pairs), gaps(model, pairs), atol=1e-3, rtol=0)

    @pytest.mark.parametrize("nll_weight", [0.0, 1.0])
    @pytest.mark.parametrize("loss", LOSSES.names())
    def test_the_gradient_of_a_batch_is_the_mean_of_its_pairs_gradients(
        self, model: Any, pairs: list[Pair], loss: str, nll_weight: float
    ) -> None:
        """Whatever stands beside a pair in its batch, and however long it is."""

        def gradients(batch: list[Pair]) -> list[torch.Tensor]:
            model.zero_grad()
            found, _ = dpo.pair_logps(model, dpo.collate(batch, PAD))
            dpo.objective(found, config).mean().backward()
            return [weight.grad.clone() for weight in model.parameters()]

        config = make_config(loss=loss, nll_weight=nll_weight, label_smoothing=SMOOTHING[loss])
        for pair in pairs:  # no longer the reference's, so that margins are of both signs
            pair["reference_chosen"] += 0.7 * len(pair["rejected_ids"]) - 2
        alone = [gradients([pair]) for pair in pairs]
        for weight, each in zip(gradients(pairs), zip(*alone, strict=True), strict=True):
            torch.testing.assert_close(weight, torch.stack(each).mean(0), atol=1e-5, rtol=1e-4)

    def test_a_warm_up_longer_than_the_training_ends_with_it(
        self, model: Any, pairs: list[Pair], tiny_gpt2: Callable[..., Any], tmp_path: Path
    ) -> None:
        clamped = train(model, pairs, make_config(steps=4, warmup_steps=100), tmp_path / "clamped")
        equal = train(tiny_gpt2(0, width=16), pairs, make_config(steps=4, warmup_steps=4), tmp_path / "equal")
        assert clamped == equal

    def test_bf16_stays_near_fp32(
        self, model: Any, pairs: list[Pair], tiny_gpt2: Callable[..., Any], tmp_path: Path
    ) -> None:
        """The forward pass is rounded to 8 bits, and so differs; weights and log-probs are fp32."""
        rounded = tiny_gpt2(0, width=16)
        fine = train(model, pairs, make_config(), tmp_path / "fp32").history[-1]
        coarse = train(rounded, pairs, make_config(precision="bf16"), tmp_path / "bf16").history[-1]
        assert coarse["loss"] != pytest.approx(fine["loss"], abs=1e-6)
        assert coarse["loss"] == pytest.approx(fine["loss"], abs=0.1)
        assert {weight.dtype for weight in rounded.parameters()} == {torch.float32}


class TestStopping:
    def test_stops_where_the_chosen_logprob_falls_too_far(
        self, model: Any, pairs: list[Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A wild learning rate drives the chosen texts down by more than a nat."""
        config = make_config(learning_rate=0.1, stop_chosen_drop=1.0, steps=40)
        outcome = train(model, pairs, config, tmp_path)
        assert outcome.stopped_early
        assert outcome.steps == outcome.history[-1]["step"] < 40
        assert [row["chosen_drop"] > 1 for row in outcome.history] == [*[False] * (len(outcome.history) - 1), True]
        assert f"step {outcome.steps}: the chosen log-prob fell by" in caplog.text
        assert "dpo.stop_chosen_drop = 1;" in caplog.text

    def test_a_margin_that_runs_away_is_told_once(
        self, model: Any, pairs: list[Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "alignment.training.dpo"):
            outcome = train(model, pairs, make_config(learning_rate=0.01, steps=24), tmp_path)
        assert outcome.history[-1]["rewards/accuracy"] > 0.98
        assert caplog.text.count("the margin (") == 1
        assert "nearly every pair is ranked right (accuracy 1.000), and the margin (" in caplog.text
        assert "further steps move the policy away from the reference without improving the ranking" in caplog.text

    @pytest.mark.parametrize("steps", [4, 5], ids=["on a logging step", "after the last logging step"])
    def test_a_loss_that_is_not_a_number_raises(
        self, model: Any, pairs: list[Pair], tmp_path: Path, steps: int
    ) -> None:
        """The reference of one pair is NaN: the first epoch meets it once, and then every weight is NaN too."""
        pairs[0]["reference_chosen"] = math.nan
        with pytest.raises(TrainingError, match="loss nan at step"):
            train(model, pairs[:4], make_config(steps=steps, log_every=4), tmp_path)


class TestResuming:
    """A run that was interrupted ends as if it had not been."""

    @pytest.mark.parametrize(
        ("optimizer", "accumulation", "interrupted_at"),
        [("adamw", 1, 5), ("adamw", 1, 11), ("adamw", 2, 7), ("rmsprop", 1, 7), ("rmsprop", 2, 9)],
    )
    def test_ends_with_the_weights_and_history_of_an_undisturbed_run(
        self,
        model: Any,
        pairs: list[Pair],
        tiny_gpt2: Callable[..., Any],
        tmp_path: Path,
        optimizer: str,
        accumulation: int,
        interrupted_at: int,
    ) -> None:
        """To the bit. Checkpoints come at steps 4 and 8: within an epoch of three steps, at the end of one of two."""
        config = make_config(optimizer=optimizer, accumulation=accumulation, nll_weight=0.1, weight_decay=0.01)
        undisturbed = train(model, pairs, config, tmp_path / "undisturbed")

        interrupt(tiny_gpt2(0, width=16), pairs, config, tmp_path / "work", interrupted_at)
        assert [path.name for path in checkpoints(tmp_path / "work")] == [f"checkpoint-{interrupted_at // 4 * 4}"]
        resumed_model = tiny_gpt2(0, width=16)
        steps: list[int] = []
        resumed = train(resumed_model, pairs, config, tmp_path / "work", progress=lambda done, _: steps.append(done))

        assert steps[0] == interrupted_at // 4 * 4 + 1
        assert resumed == undisturbed
        assert_same_weights(resumed_model, model)

    def test_a_finished_run_asked_again_ends_the_same(
        self, model: Any, pairs: list[Pair], tiny_gpt2: Callable[..., Any], tmp_path: Path
    ) -> None:
        """What was lost is the result, not the work folder; 8 steps end within an epoch of three."""
        config = make_config(steps=8)
        first = train(model, pairs, config, tmp_path)
        again = tiny_gpt2(0, width=16)
        assert train(again, pairs, config, tmp_path) == first
        assert_same_weights(again, model)

    def test_a_run_that_stopped_early_asked_again_ends_the_same(
        self, model: Any, pairs: list[Pair], tiny_gpt2: Callable[..., Any], tmp_path: Path
    ) -> None:
        """Where it stopped is a step at which checkpoints are written."""
        config = make_config(learning_rate=0.1, stop_chosen_drop=1.0, checkpoint_every=2, steps=40)
        first = train(model, pairs, config, tmp_path)
        again = tiny_gpt2(0, width=16)
        assert first.stopped_early
        assert train(again, pairs, config, tmp_path) == first
        assert_same_weights(again, model)

    def test_a_half_written_checkpoint_is_passed_over(
        self, model: Any, pairs: list[Pair], tiny_gpt2: Callable[..., Any], tmp_path: Path
    ) -> None:
        """It lacks the file that is written last; the whole one before it serves."""
        interrupt(model, pairs, make_config(), tmp_path, 7)
        (tmp_path / "checkpoint-10").mkdir()
        steps: list[int] = []
        train(tiny_gpt2(0, width=16), pairs, make_config(), tmp_path, progress=lambda done, _: steps.append(done))
        assert steps[0] == 5

    @pytest.mark.parametrize(
        "file", ["trainer_state.json", "optimizer.json", "optimizer.safetensors", "model.safetensors"]
    )
    @pytest.mark.parametrize("length", [None, 0, 200], ids=["missing", "empty", "cut off"])
    def test_a_torn_checkpoint_is_deleted_for_the_whole_one_before_it(
        self, model: Any, pairs: list[Pair], tmp_path: Path, file: str, length: int | None
    ) -> None:
        """What a power cut leaves: a name without its content."""
        interrupt(model, pairs, make_config(), tmp_path, 7)
        whole, torn = tmp_path / "checkpoint-4", tmp_path / "checkpoint-10"
        shutil.copytree(whole, torn)
        assert resume_point(tmp_path) == str(torn)
        content = (torn / file).read_bytes()
        (torn / file).unlink()
        if length is not None:
            (torn / file).write_bytes(content[:length])
        assert resume_point(tmp_path) == str(whole)
        assert checkpoints(tmp_path) == [whole]

    def test_without_a_whole_checkpoint_training_starts_anew(
        self, model: Any, pairs: list[Pair], tiny_gpt2: Callable[..., Any], tmp_path: Path
    ) -> None:
        interrupt(model, pairs, make_config(), tmp_path, 7)
        (tmp_path / "checkpoint-4" / "trainer_state.json").write_text("")
        steps: list[int] = []
        train(tiny_gpt2(0, width=16), pairs, make_config(), tmp_path, progress=lambda done, _: steps.append(done))
        assert steps[0] == 1

    def test_weights_in_parts_are_whole_only_with_every_part(
        self, model: Any, pairs: list[Pair], tmp_path: Path
    ) -> None:
        interrupt(model, pairs, make_config(), tmp_path, 7)
        folder = tmp_path / "checkpoint-4"
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors")
        assert resume_point(tmp_path) == str(folder)
        (folder / "model-00002-of-00002.safetensors").unlink()
        assert resume_point(tmp_path) is None

    @pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
    def test_a_checkpoint_holds_no_pickle(self, model: Any, pairs: list[Pair], tmp_path: Path, optimizer: str) -> None:
        interrupt(model, pairs, make_config(optimizer=optimizer), tmp_path, 5)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {path.suffix for path in files} == {".safetensors", ".json"}
        for path in files:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))


class TestInterruption:
    """A progress function that raises `Interrupted` stops a training between two steps, and nothing of it is lost."""

    @pytest.mark.parametrize(
        ("asked_at", "stops_at", "changes"),
        [
            (4, 4, {"accumulation": 2, "optimizer": "rmsprop"}),  # rows come at even steps
            (5, 6, {}),
            (1, 2, {"checkpoint_every": 100}),  # no other checkpoint would have been written
        ],
    )
    def test_it_stops_at_the_next_row_with_a_checkpoint_and_ends_as_if_undisturbed(
        self,
        model: Any,
        pairs: list[Pair],
        tiny_gpt2: Callable[..., Any],
        tmp_path: Path,
        asked_at: int,
        stops_at: int,
        changes: dict[str, Any],
    ) -> None:
        """To the bit: weights, history, and the rows that were told on the way."""
        config = make_config(**changes)
        rows: list[Row] = []
        undisturbed = train(model, pairs, config, tmp_path / "undisturbed")

        asked = stop(tiny_gpt2(0, width=16), pairs, config, tmp_path / "work", asked_at, on_row=rows.append)
        assert asked == list(range(1, asked_at + 1))
        assert [path.name for path in checkpoints(tmp_path / "work")] == [f"checkpoint-{stops_at}"]
        assert [row["step"] for row in rows] == list(range(2, stops_at + 1, 2))
        resumed_model = tiny_gpt2(0, width=16)
        steps: list[int] = []
        resumed = train(
            resumed_model,
            pairs,
            config,
            tmp_path / "work",
            progress=lambda done, _: steps.append(done),
            on_row=rows.append,
        )
        assert steps == list(range(stops_at + 1, 13))
        assert resumed == undisturbed
        assert rows == undisturbed.history
        assert_same_weights(resumed_model, model)

    def test_it_does_not_wait_for_long(
        self,
        model: Any,
        pairs: list[Pair],
        tiny_gpt2: Callable[..., Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Where the next row is too far, it stops between two: that row's means are then of fewer steps."""
        config = make_config(log_every=6)
        undisturbed = train(model, pairs, config, tmp_path / "undisturbed")
        monkeypatch.setattr(harness, "PATIENCE", -1.0)
        stop(tiny_gpt2(0, width=16), pairs, config, tmp_path / "work", 4)
        assert [path.name for path in checkpoints(tmp_path / "work")] == ["checkpoint-4"]
        resumed_model = tiny_gpt2(0, width=16)
        resumed = train(resumed_model, pairs, config, tmp_path / "work")
        assert_same_weights(resumed_model, model)
        assert [row["step"] for row in resumed.history] == [6, 12]
        assert resumed.history[1] == undisturbed.history[1]

    def test_twice_interrupted_is_resumed_twice(
        self, model: Any, pairs: list[Pair], tiny_gpt2: Callable[..., Any], tmp_path: Path
    ) -> None:
        undisturbed = train(model, pairs, make_config(), tmp_path / "undisturbed")
        for step in (3, 7):
            stop(tiny_gpt2(0, width=16), pairs, make_config(), tmp_path / "work", step)
        resumed_model = tiny_gpt2(0, width=16)
        assert train(resumed_model, pairs, make_config(), tmp_path / "work") == undisturbed
        assert_same_weights(resumed_model, model)

    @pytest.mark.parametrize(("log_every", "asked_at"), [(2, 11), (2, 12), (5, 11)])
    def test_a_training_that_reaches_its_end_is_not_interrupted(
        self,
        model: Any,
        pairs: list[Pair],
        tiny_gpt2: Callable[..., Any],
        tmp_path: Path,
        log_every: int,
        asked_at: int,
    ) -> None:
        """No row comes before the last step any more, and the end of a training is worth more than a checkpoint."""
        config = make_config(log_every=log_every, checkpoint_every=100)
        undisturbed = train(model, pairs, config, tmp_path / "undisturbed")
        told = tiny_gpt2(0, width=16)

        def ask(done: int, _: int) -> None:
            if done == asked_at:
                raise Stopped("asked to")

        assert train(told, pairs, config, tmp_path / "work", progress=ask) == undisturbed
        assert_same_weights(told, model)
        assert checkpoints(tmp_path / "work") == []

    def test_a_training_that_stops_by_itself_at_that_step_is_not_interrupted(
        self, model: Any, pairs: list[Pair], tiny_gpt2: Callable[..., Any], tmp_path: Path
    ) -> None:
        """Resumed, it would go on behind the point where the chosen log-prob fell too far."""
        config = make_config(learning_rate=0.1, stop_chosen_drop=1.0, steps=40)
        undisturbed = train(model, pairs, config, tmp_path / "undisturbed")
        assert undisturbed.stopped_early
        told = tiny_gpt2(0, width=16)

        def ask(done: int, _: int) -> None:
            if done == undisturbed.steps - 1:
                raise Stopped("asked to")

        assert train(told, pairs, config, tmp_path / "work", progress=ask) == undisturbed
        assert_same_weights(told, model)

    def test_a_loss_that_is_not_a_number_is_told_though_the_run_was_asked_to_stop(
        self, model: Any, pairs: list[Pair], tmp_path: Path
    ) -> None:
        """A checkpoint of NaN would be resumed for ever."""
        pairs[0]["reference_chosen"] = math.nan

        def ask(done: int, _: int) -> None:
            raise Stopped("asked to")

        with pytest.raises(TrainingError, match="loss nan at step"):
            train(model, pairs[:4], make_config(), tmp_path, progress=ask)
        assert checkpoints(tmp_path) == []


class TestAsAKind:
    """`dpo.trainer = dpo`, with the whole configuration, as the stage `policy` calls it."""

    CONFIG = build_config({"dpo": {"loss": "sigmoid", "steps": 4, "batch_size": 4, "log_every": 2}, "seed": 3})

    @pytest.fixture
    def loaded(self, base: Loaded) -> Loaded:
        """A copy, as it is trained in place."""
        return Loaded(copy.deepcopy(base.model), base.tokenizer, "base.model x")

    @pytest.fixture
    def pairs(self, loaded: Loaded) -> list[Pair]:
        return make_pairs(loaded.model, 10)

    def test_it_trains_with_the_configs_seed_and_dpo_group(
        self, base: Loaded, loaded: Loaded, pairs: list[Pair], tmp_path: Path
    ) -> None:
        other = copy.deepcopy(base.model)
        rows: list[Row] = []
        found = TRAINERS.get("dpo")(loaded, pairs, self.CONFIG, work=tmp_path / "kind", on_row=rows.append)
        assert found == train(other, pairs, self.CONFIG.dpo, tmp_path / "function")
        assert found.history == rows
        assert_same_weights(loaded.model, other)

    def test_pairs_with_another_models_log_probs_are_refused(
        self, loaded: Loaded, pairs: list[Pair], tmp_path: Path
    ) -> None:
        for pair in pairs:
            pair["reference_chosen"] += 1
        with pytest.raises(SelfCheckError, match=r"^base\.model x: the pairs' reference in a batch is off by"):
            TRAINERS.get("dpo")(loaded, pairs, self.CONFIG, work=tmp_path)

    def test_a_model_that_draws_at_random_is_refused(self, loaded: Loaded, pairs: list[Pair], tmp_path: Path) -> None:
        """Noise in training mode alone, of a kind that nobody has heard of."""

        def noise(module: Any, _: Any, output: Any) -> Any:
            return output + 0.1 * torch.randn_like(output) if module.training else output

        loaded.model.transformer.wte.register_forward_hook(noise)
        with pytest.raises(SelfCheckError, match=r"^base\.model x: training in a batch is off by"):
            TRAINERS.get("dpo")(loaded, pairs, self.CONFIG, work=tmp_path)


def test_label_smoothing_that_has_no_effect_is_refused_before_training(
    model: Any, pairs: list[Pair], tmp_path: Path
) -> None:
    """A loss of another package says so only once it is imported, so the config lets it pass."""
    config = make_config(loss="ipo").model_copy(update={"label_smoothing": 0.1})
    with pytest.raises(ConfigError) as raised:
        train(model, pairs, config, tmp_path)
    assert str(raised.value) == (
        "dpo.label_smoothing = 0.1 has no effect on the ipo loss: set it to 0, or take the sigmoid or robust loss"
    )


def test_one_process_trains_on_one_gpu_however_many_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Eight(TrainingArguments):
        @cached_property
        def _setup_devices(self) -> torch.device:
            self._n_gpu = 8
            return torch.device("cpu")

    monkeypatch.setattr(harness, "TrainingArguments", Eight)
    found = harness.arguments(tmp_path, harness.Settings(1, 3, 1.0, 0, 1, 1), seed=0)
    assert (found.n_gpu, found.train_batch_size) == (1, 3)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("opt", {"layerdrop": 0.5}), ("mixtral", {"router_jitter_noise": 0.1})],
    ids=["opt", "mixtral"],
)
def test_layers_and_experts_are_not_drawn_at_random(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Policy and reference are one model at the start, so the margin is 0 there."""
    model = build(kind, **changes)
    outcome = train(model, make_pairs(model, 4), make_config(steps=1, log_every=1), tmp_path)
    assert outcome.history[0]["rewards/margin"] == pytest.approx(0, abs=1e-4)


def test_a_model_that_cannot_be_trained_is_named(model: Any, pairs: list[Pair], tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise NotImplementedError("derivative for this is not implemented")

    model.transformer.wte.register_forward_hook(fail)
    with pytest.raises(ModelError) as raised:
        train(model, pairs, make_config(steps=1), tmp_path, name="base.model x")
    assert str(raised.value).startswith(
        "base.model x: cannot be used for training (NotImplementedError: derivative for this is not implemented); check"
    )


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
