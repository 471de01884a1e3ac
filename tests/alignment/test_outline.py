"""A model without its weights: the tokenizer and conventions of the whole one."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import ModelError
from alignment.models import load_base
from alignment.outline import outline


def test_it_tokenises_and_has_the_conventions_of_the_whole_model(base_folder: Path) -> None:
    whole, found = load_base(base_folder), outline(str(base_folder))
    assert found.conventions == whole.conventions
    assert found.encode(["a fine film"]) == whole.encode(["a fine film"])
    assert {str(weight.device) for weight in found.model.parameters()} == {"meta"}


def test_weights_are_not_read(base_folder: Path, tmp_path: Path) -> None:
    for file in base_folder.iterdir():
        (tmp_path / file.name).write_bytes(b"none" if file.suffix == ".safetensors" else file.read_bytes())
    assert outline(str(tmp_path)).conventions.longest == 16


def test_further_ends_of_the_generation_config_count(base_folder: Path, tmp_path: Path) -> None:
    for file in base_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 7]}))
    assert outline(str(tmp_path)).conventions.ends == (0, 7)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_what_is_missing_is_refused(base_folder: Path, tmp_path: Path, missing: str) -> None:
    for file in base_folder.iterdir():
        if file.name != missing and not (missing == "tokenizer.json" and file.name.startswith("tokenizer")):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"base\.model"):
        outline(str(tmp_path))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        outline(str(tmp_path / "none"))


def test_of_an_adapter_it_is_the_bases(base_folder: Path, tmp_path: Path, base: Any) -> None:
    from alignment import adapters

    (tmp_path / adapters.WEIGHTS).write_bytes(b"none")
    (tmp_path / adapters.CONFIG).write_text(
        json.dumps({"base_model_name_or_path": str(base_folder), "peft_type": "LORA", "task_type": "CAUSAL_LM"})
    )
    assert outline(str(tmp_path)).conventions == base.conventions
