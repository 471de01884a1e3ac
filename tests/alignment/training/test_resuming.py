"""A training that crashed or was asked to stop goes on from its checkpoint, and ends as an undisturbed one."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment.config import RewardConfig
from alignment.errors import Interrupted as Stopped
from alignment.errors import TrainingError
from alignment.training import harness
from alignment.training.protocol import Row
from alignment.training.reward import Openings, starting_model
from tests.alignment.training.small import Interrupted as Crashed
from tests.alignment.training.small import Pair, assert_same_weights, checkpoints, interrupt, make_config, stop, train


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

    def test_without_a_whole_checkpoint_training_starts_anew(
        self, model: Any, pairs: list[Pair], tiny_gpt2: Callable[..., Any], tmp_path: Path
    ) -> None:
        interrupt(model, pairs, make_config(), tmp_path, 7)
        (tmp_path / "checkpoint-4" / "trainer_state.json").write_text("")
        steps: list[int] = []
        train(tiny_gpt2(0, width=16), pairs, make_config(), tmp_path, progress=lambda done, _: steps.append(done))
        assert steps[0] == 1


class TestDraws:
    """What is drawn at random is drawn on, as if nothing had come between."""

    @pytest.mark.parametrize("batch_size", [4, 2])
    @pytest.mark.parametrize(
        ("fault", "goes_on_from"), [(Crashed, 4), (Crashed, 8), (Stopped, 2), (Stopped, 6), (Stopped, 10)]
    )
    def test_dropout_and_openings_are_those_of_an_undisturbed_run(
        self, tiny_tokenizer: Any, tmp_path: Path, fault: type[Exception], goes_on_from: int, batch_size: int
    ) -> None:
        """To the bit: weights and history. An epoch has three steps, the last half full, whatever goes at once."""

        def disturb(done: int, _: int) -> None:
            if done == goes_on_from + (fault is Crashed):
                raise fault

        undisturbed, history = self.learn(tiny_tokenizer, batch_size, tmp_path / "undisturbed")
        with pytest.raises(fault):
            self.learn(tiny_tokenizer, batch_size, tmp_path / "work", progress=disturb)
        assert [path.name for path in checkpoints(tmp_path / "work")] == [f"checkpoint-{goes_on_from}"]
        resumed, told = self.learn(tiny_tokenizer, batch_size, tmp_path / "work")
        assert told == history
        assert_same_weights(resumed, undisturbed)

    @staticmethod
    def learn(tokenizer: Any, batch_size: int, work: Path, **others: Any) -> tuple[Any, list[dict[str, float]]]:
        """A reward model that has learnt from ten texts, and what was logged."""
        config = RewardConfig(layers=1, width=16, heads=2, context=16, min_opening=2)
        model = starting_model(config, tokenizer, ("NEGATIVE", "POSITIVE"), 0).model
        rows = [{"ids": list(range(number, number + 16)), "label": number % 2} for number in range(10)]
        settings = harness.Settings(12, batch_size, 1e-2, 2, log_every=2, checkpoint_every=4, step_rows=4)
        openings = Openings(config, 0, 3)
        state = harness.fit(model, rows, settings, openings, skip=openings.skip, seed=3, work=work, **others)
        return model, [row for row in state.log_history if "loss" in row]

    def test_a_checkpoint_of_an_earlier_release_has_no_random_state(
        self, tiny_tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Training goes on from it, and says what is not as it would have been."""

        def ask(_done: int, _total: int) -> None:
            raise Stopped

        with pytest.raises(Stopped):
            self.learn(tiny_tokenizer, 4, tmp_path, progress=ask)
        (tmp_path / "checkpoint-2" / "random.safetensors").unlink()
        steps: list[int] = []
        self.learn(tiny_tokenizer, 4, tmp_path, progress=lambda done, _: steps.append(done))
        assert steps[0] == 3
        assert "checkpoint-2 has no random state: dropout, if there is any, is drawn anew" in caplog.text


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
        assert asked == list(range(1, stops_at + 1)), "what else is done at a step is done up to the checkpoint"
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
