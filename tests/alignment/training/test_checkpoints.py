"""Checkpoints: no pickle is among them, and one of which a part is missing is not resumed from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from alignment.training.checkpoints import resume_point
from tests.alignment.training.small import Pair, checkpoints, interrupt, make_config


@pytest.mark.parametrize("file", ["trainer_state.json", "optimizer.json", "optimizer.safetensors", "model.safetensors"])
@pytest.mark.parametrize("length", [None, 0, 200], ids=["missing", "empty", "cut off"])
def test_a_torn_checkpoint_is_deleted_for_the_whole_one_before_it(
    model: Any, pairs: list[Pair], tmp_path: Path, file: str, length: int | None
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


@pytest.mark.parametrize("length", [0, 200], ids=["empty", "cut off"])
def test_a_checkpoint_is_whole_without_random_state_and_torn_with_a_part_of_it(
    model: Any, pairs: list[Pair], tmp_path: Path, length: int
) -> None:
    """Earlier releases kept none."""
    interrupt(model, pairs, make_config(), tmp_path, 7)
    (checkpoint,) = checkpoints(tmp_path)
    state = checkpoint / "random.safetensors"
    content = state.read_bytes()
    state.unlink()
    assert resume_point(tmp_path) == str(checkpoint)
    state.write_bytes(content[:length])
    assert resume_point(tmp_path) is None


def test_weights_in_parts_are_whole_only_with_every_part(model: Any, pairs: list[Pair], tmp_path: Path) -> None:
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
def test_a_checkpoint_holds_no_pickle(model: Any, pairs: list[Pair], tmp_path: Path, optimizer: str) -> None:
    interrupt(model, pairs, make_config(optimizer=optimizer), tmp_path, 5)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
