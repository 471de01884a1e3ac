"""What a run recorded, read back for people: its settings."""

import pytest

from alignment.config import build_config
from tasks.registry import recorded, runs

pytestmark = pytest.mark.usefixtures("local")


def test_of_parts_the_settings_name_what_is_not_as_it_is_by_default() -> None:
    judges = [{"name": "words", "kind": "tfidf"}, {"name": "other", "model": "./another", "weight": 2.0}]
    config = build_config({"evaluation": {"gold": judges}, "dpo": {"beta": 0.3}})
    found = recorded._settings(runs.start_run(config, "judged"))
    assert found["evaluation.gold"] == judges
    assert found["reward.parts"] == []
    assert found["dpo.beta"] == 0.3
