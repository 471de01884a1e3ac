"""What is told between two stages: a reward model that is no better than chance."""

import json
import logging
from pathlib import Path

import pytest

from alignment.config import build_config
from alignment.stages.store import StageRef
from tasks.checks import warn_of_chance


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
