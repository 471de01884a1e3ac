"""What is told between two stages: a reward model that is no better than chance, or that learns from fewer texts."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from alignment.config import build_config, merge
from alignment.stages.store import StageRef
from tasks.checks import warn_of_chance, warn_of_reward


@pytest.mark.parametrize(("accuracy", "warned"), [(0.508, True), (0.55, False), (0.9, False), (None, False)])
def test_a_reward_model_at_chance_is_warned_of_before_anything_is_sampled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, accuracy: float | None, warned: bool
) -> None:
    """None: a reward that was not trained here."""
    if accuracy is not None:
        (tmp_path / "metrics.json").write_text(json.dumps({"validation_accuracy": accuracy}), encoding="utf-8")
    ref = StageRef(stage="reward", key="k", path=tmp_path, digest="d", counts={}, seconds=0.0)
    with caplog.at_level(logging.WARNING):
        warn_of_chance(build_config({"reward": {"steps": 150}}), {"reward": ref}, "")
    assert ("about 51% of held-out texts" in caplog.text and "reward.steps = 150" in caplog.text) == warned


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, True),
        ({"evaluation": {"gold_fraction": 0}}, False),
        ({"evaluation": {"gold": []}}, False),
        ({"reward": {"model": "./mine"}}, False),
    ],
    ids=["both are trained here", "they share the texts", "no judge", "the reward is given"],
)
def test_it_is_told_in_one_line_that_a_second_judge_takes_texts_from_the_reward(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, Any], told: bool
) -> None:
    judged = {"data": {"rows": 900}, "evaluation": {"gold": [{"name": "words", "kind": "tfidf"}], "gold_fraction": 0.2}}
    ref = StageRef(stage="reward", key="k", path=tmp_path, digest="d", counts={}, seconds=0.0)
    with caplog.at_level(logging.WARNING):
        warn_of_reward(build_config(merge(judged, changed)), {"reward": ref}, "")
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == told
    for message in found:
        assert "\n" not in message
        assert "learns from 80% of the texts, as the others train words (evaluation.gold)" in message
        assert "data.rows = 900" in message
        assert "evaluation.gold_fraction = 0.2" in message
