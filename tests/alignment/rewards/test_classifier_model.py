"""The model of the reward `classifier`: copied, or trained on the labelled texts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignment.config import build_config
from alignment.kinds import REWARD_MODELS
from alignment.rows import TEXTS
from alignment.stages.job import Job

SIZE = {"layers": 1, "width": 16, "heads": 2, "context": 16, "batch_size": 8, "learning_rate": 1e-2}
ROWS = [
    {"text": "fine fine fine film", "label": 1, "columns": ""},
    {"text": "dull dull dull film", "label": 0, "columns": ""},
] * 20


def make(root: Path, **reward: Any) -> dict[str, int]:
    config = build_config({"reward": reward, "base": {"vocab_size": 300}, "sampling": {"total_tokens": 16}})
    out, work, texts = (root / name for name in ("out", "work", "texts"))
    for folder in (out, work, texts):
        folder.mkdir(parents=True)
    TEXTS.write(texts, ROWS)
    counts: dict[str, int] = REWARD_MODELS.get("classifier")(Job(config, {"texts": texts}, out, work, root / "kept"))
    return counts


def test_a_given_model_is_copied(reward_folder, tmp_path):
    assert make(tmp_path, model=str(reward_folder)) == {"copied": 1}
    one, two = (load_file(folder / "model.safetensors") for folder in (reward_folder, tmp_path / "out" / "model"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_model_is_trained_and_measured(tmp_path):
    assert make(tmp_path, **SIZE, steps=30, min_opening=4) == {"texts": 40, "steps": 30}
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == {"validation_accuracy": 1.0}


@pytest.mark.parametrize("wanted", ["POSITIVE", "NEGATIVE"])
def test_the_class_to_reward_makes_no_other_model(tmp_path, wanted):
    make(tmp_path / "auto", **SIZE, steps=2)
    make(tmp_path / "named", **SIZE, steps=2, positive_class=wanted)
    one, two = ((tmp_path / name / "out" / "model" / "model.safetensors").read_bytes() for name in ("auto", "named"))
    assert one == two
