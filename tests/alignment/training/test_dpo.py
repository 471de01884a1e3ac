"""DPO: where it starts, that it learns, and that it stops where it should."""

import copy
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from alignment.config import build_config
from alignment.errors import ConfigError, ModelError, SelfCheckError, TrainingError
from alignment.kinds import LOSSES, TRAINERS
from alignment.logprobs import score_completions
from alignment.models import Loaded
from alignment.training import dpo
from alignment.training.protocol import Row
from tests.alignment.architectures import build
from tests.alignment.training.small import (
    PAD,
    SMOOTHING,
    Pair,
    assert_same_weights,
    gaps,
    make_config,
    make_pairs,
    train,
)


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
        for flat, ids in ((False, [[5, 6, 7], [5, 8, PAD]]), (True, [[5, 6, 7, 8]])):
            batch = dpo.collate([pair], pad_id=PAD, flat=flat)
            (layout,) = batch["layouts"]
            assert layout["ids"].tolist() == ids
            assert layout["targets"].tolist() == [6, 7, 8]
            assert batch["reference"].tolist() == [-3, -4]

    @pytest.mark.parametrize(
        ("loss", "expected"),
        [("sigmoid", math.log(2)), ("hinge", 1.0), ("ipo", 25.0), ("robust", math.log(2)), ("distill", 4.0)],
    )
    def test_objective_by_hand(self, model: Any, pairs: list[Pair], loss: str, expected: float) -> None:
        """β = 0.1: ln 2, 1, (0 − 5)², (0.9 − 0.1) ln 2 / 0.8, and (0 − 2)² where the scores differ by 2."""
        config = make_config(loss=loss, beta=0.1, label_smoothing=SMOOTHING[loss])
        pairs = [{**pair, "gap": 2.0} for pair in pairs]
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
        expected = score_completions(model, *arguments, pad_id=PAD)
        model.train()
        with pytest.raises(SelfCheckError):  # one text would have two probabilities
            score_completions(model, *arguments, pad_id=PAD)
        dpo.without_dropout(model)
        assert (score_completions(model, *arguments, pad_id=PAD) == expected).all()


class TestTraining:
    @pytest.mark.parametrize("loss", LOSSES.names())
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


def test_a_divergence_that_a_loss_does_not_go_with_is_refused_before_training(
    model: Any, pairs: list[Pair], tmp_path: Path
) -> None:
    """As above: only the imported loss says that it reads log-ratios."""
    config = make_config(loss="ipo").model_copy(update={"divergence": "forward_kl"})
    with pytest.raises(ConfigError) as raised:
        train(model, pairs, config, tmp_path)
    assert str(raised.value) == (
        "dpo.divergence = forward_kl does not go with the ipo loss, which reads log-ratios: "
        "set it to reverse_kl, or take the sigmoid, hinge, robust or distill loss"
    )


@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon", "alpha"])
def test_training_under_another_divergence_raises_the_margin_that_it_logs(
    model: Any, pairs: list[Pair], tmp_path: Path, divergence: str
) -> None:
    history = train(model, pairs, make_config(divergence=divergence, learning_rate=3e-3), tmp_path).history
    assert history[0]["rewards/margin"] < history[-1]["rewards/margin"] - 0.1
    assert history[-1]["rewards/chosen"] != pytest.approx(-0.5 * history[-1]["chosen_drop"], abs=1e-3)


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


class Rows(Sequence[Pair]):
    """Pairs that are made when they are asked for, with ids that are no lists."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return {
            name: np.array(value, dtype=np.int32) if name.endswith("_ids") else value
            for name, value in self.pairs[index].items()
        }


class TestLayouts:
    """Whether pairs lie flat or padded, are held or made, or are computed twice, changes no more than rounding."""

    SETTINGS: ClassVar[dict[str, Any]] = {"steps": 4, "log_every": 1, "checkpoint_every": 100}

    @pytest.fixture(params=["gpt2", "llama"])
    def kind(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def history(self, kind: str, work: Path, pairs: Any = None, **changes: Any) -> list[Row]:
        model = build(kind)
        return train(model, pairs or make_pairs(model, 10), make_config(**self.SETTINGS | changes), work).history

    @pytest.fixture
    def flat(self, kind: str, tmp_path: Path) -> list[Row]:
        return self.history(kind, tmp_path / "flat")

    def assert_same(self, found: list[Row], expected: list[Row]) -> None:
        for row, other in zip(found, expected, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-4)

    def test_padded(self, kind: str, flat: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dpo, "why_padded", lambda *_: "so that it is")
        self.assert_same(self.history(kind, tmp_path / "padded"), flat)

    def test_made_when_asked_for(self, kind: str, flat: list[Row], tmp_path: Path) -> None:
        self.assert_same(self.history(kind, tmp_path / "made", Rows(make_pairs(build(kind), 10))), flat)

    def test_with_layers_computed_twice(self, kind: str, flat: list[Row], tmp_path: Path) -> None:
        self.assert_same(self.history(kind, tmp_path / "twice", gradient_checkpointing=True), flat)

    def test_a_model_that_cannot_lie_flat_is_trained_padded_and_says_why(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "alignment.logprobs"):
            model = build("lfm2")
            pairs = make_pairs(model, 4)
            first = train(model, pairs, make_config(steps=2, log_every=1), tmp_path, name="base.model x").history[0]
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
        lines = [record.getMessage() for record in caplog.records if record.name == "alignment.logprobs"]
        assert lines == ["the model: texts lie in padded rows: flat, they would have other log-probs"]
