"""The whole flow on given pairs and without a reward: it is judged by held-out pairs, recorded and registered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment import models
from alignment.config import AlignConfig, build_config, merge
from alignment.models import Loaded
from flows.align import align
from tests.alignment.preference_rows import row_of, with_chatml, write
from tests.flows.small import OPEN_GATES, SMALL

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("at_home")]

ROWS = 60


@pytest.fixture
def settings(tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path) -> Callable[..., AlignConfig]:
    """Conversations, and a random model that knows ChatML."""
    tokenizer = with_chatml(tiny_tokenizer)
    models.save(Loaded(tiny_gpt2(vocab_size=len(tokenizer), width=16, context=128), tokenizer), tmp_path / "model")
    data = write(tmp_path / "pairs.jsonl", [row_of(number, "conversational explicit") for number in range(ROWS)])
    own = {
        "data": {"path": str(data), "rows": 0},
        "base": {"model": str(tmp_path / "model")},
        "reward": {"kind": "none"},
        "prompts": {"source": "pairs", "count": 100, "eval_count": 20, "min_eval": 4, "max_tokens": 90},
        "pairs": {"source": "given"},
        "sampling": {"total_tokens": 110},
        "dpo": {"learning_rate": 1e-2, "loss": "sigmoid", "stop_chosen_drop": 0.0},
        "gates": OPEN_GATES,
        "registry": {"model_name": "own-pairs", "experiment": "own-pairs"},
    }

    def build(**changes: Any) -> AlignConfig:
        small = {name: SMALL[name] for name in ("validation", "dpo", "evaluation")}
        return build_config(merge(merge(small, own), changes))

    return build


def test_a_policy_that_ranks_held_out_pairs_is_registered_without_any_reward(
    settings: Callable[..., AlignConfig], at_home: Path
) -> None:
    result = align(settings())
    from mlflow import MlflowClient

    assert result.judgement.verdict == "pass", result.judgement.sentence
    assert set(result.judgement.not_applied) == {"reward_gain", "win_rate", "reward_sd_ratio"}
    assert result.model is not None
    found = result.report.preferences
    assert found is not None
    client = MlflowClient(f"sqlite:///{at_home / 'mlflow.db'}")
    metrics = client.get_run(result.run_id).data.metrics
    assert metrics["preferences/accuracy"] == pytest.approx(found.accuracy)
    assert metrics["preferences/accuracy_low"] == pytest.approx(found.accuracy_ci[0])
    assert metrics["gate/preference_accuracy"] == 1
    assert not [
        name for name in metrics if name.startswith(("delta/reward", "delta/win", "base/reward", "gate/reward"))
    ]
    version = client.get_model_version_by_alias("own-pairs", "challenger")
    assert "not applied" in version.description


def test_the_terminal_and_json_say_what_was_not_applied(settings: Callable[..., AlignConfig]) -> None:
    from rich.console import Console

    from flows.cli.result import show, summary

    result = align(settings())
    console = Console(width=110, record=True)
    show(result, console)
    told = console.export_text()
    assert "accuracy on" in told
    assert "not applied: no reward" in told
    assert summary(result)["not_applied"] == result.judgement.not_applied
    assert summary(result)["preferences"]["pairs"] == result.report.preferences.pairs


def test_a_policy_that_learnt_nothing_is_refused(settings: Callable[..., AlignConfig]) -> None:
    result = align(settings(dpo={"learning_rate": 1e-12}))
    assert result.judgement.verdict == "fail"
    assert "lower bound of the accuracy on held-out pairs" in result.judgement.sentence
    assert result.model is None
