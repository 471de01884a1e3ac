"""The model of the reward `classifier`: copied, or trained on the labelled texts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignment.config import build_config
from alignment.kinds import REWARD_MODELS
from alignment.rewards.classifier_model import preferences
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


# Trained on pairs


def pair(**columns: Any) -> dict[str, Any]:
    return {"text": "", "label": -1, "columns": json.dumps(columns)}


def test_a_model_is_trained_on_pairs_and_rows_that_are_none_are_counted(tmp_path):
    rows = [pair(prompt=f"{number} ", chosen="fine fine", rejected="dull dull") for number in range(40)]
    rows.append(pair(prompt="a ", chosen="same", rejected="same"))
    config = build_config(
        {
            "reward": SIZE | {"steps": 30, "trained_on": "pairs"},
            "base": {"model": "some/model", "vocab_size": 300},
            "data": {"path": "my_pairs.jsonl"},
            "pairs": {"source": "given"},
            "prompts": {"source": "pairs", "max_tokens": 8},
            "sampling": {"total_tokens": 16},
        }
    )
    (tmp_path / "texts").mkdir()
    (tmp_path / "out").mkdir()
    TEXTS.write(tmp_path / "texts", rows)
    job = Job(config, {"texts": tmp_path / "texts"}, tmp_path / "out", tmp_path / "work", tmp_path / "kept")
    counts = {"pairs": 40, "faulty": 1, "truncated": 0, "sides_read_alike": 0, "steps": 30}
    assert REWARD_MODELS.get("classifier")(job) == counts
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == {"validation_accuracy": 1.0}


def test_the_system_prompt_begins_chats_that_bring_none():
    turn, answers = [{"role": "user", "content": "A"}], [[{"role": "assistant", "content": side}] for side in "BC"]
    own = [{"role": "system", "content": "own"}, *turn]
    rows = [json.dumps({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}) for prompt in (turn, own)]
    one, two = preferences(rows, "Be brief.")
    assert one.prompt == [{"role": "system", "content": "Be brief."}, *turn]
    assert two.prompt == own
    assert [each.prompt for each in preferences(rows)] == [turn, own]
