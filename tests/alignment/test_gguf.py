"""GGUF files: what was imported is the model that was written into the file, and anything else is refused in a line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.errors import ConfigError, InputError
from alignment.gguf import import_gguf, turn_end
from alignment.models import load_base
from tests.alignment.gguf_file import CONTEXT, END, STOP, TEMPLATE, USER, File, small_file


@pytest.fixture
def file(tmp_path: Path, tiny_tokenizer: Any) -> File:
    return small_file(tmp_path / "small.gguf", tiny_tokenizer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "small"


def refusal(call: Callable[[], object], kind: type[InputError] = InputError) -> str:
    with pytest.raises(kind) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.tensor([[5, 9, 40, 41, 7, 22]])).logits
    return found


def test_the_model_in_the_folder_is_the_one_in_the_file(file: File, folder: Path) -> None:
    import_gguf(file.write(), folder)
    torch.testing.assert_close(logits(load_base(folder).model), logits(file.model), atol=1e-5, rtol=1e-5)


def test_no_gpu_is_asked_for(file: File, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    import_gguf(file.write(), folder)
    assert (folder / "model.safetensors").is_file()


def test_quantised_weights_come_as_numbers_and_the_folder_does_not_say_that_they_were(file: File, folder: Path) -> None:
    """Eight bits a weight: each is off by half a 127th of the largest of its block at most, which is 0.8 here."""
    file.quantised = True
    import_gguf(file.write(), folder)
    loaded = load_base(folder)
    assert next(loaded.model.parameters()).dtype == torch.float32
    assert "quantization" not in (folder / "config.json").read_text("utf-8")
    for name, values in file.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], values, atol=0.8 / 127 / 2 + 1e-3, rtol=0)


def test_the_tokenizer_spells_as_before_and_brings_the_chat_template(file: File, folder: Path) -> None:
    import_gguf(file.write(), folder)
    tokenizer = load_base(folder).tokenizer
    text = "the plot was <|end|> fine!"
    assert (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        == (file.tokenizer(text, add_special_tokens=False)["input_ids"])
    )
    assert tokenizer.chat_template == TEMPLATE


def test_a_text_ends_at_the_end_token_and_at_what_ends_a_turn(file: File, folder: Path) -> None:
    """The file names <|stop|> alone, and its chat template ends every turn with <|end|>."""
    made = import_gguf(file.write(), folder)
    assert set(made.ends) == {END, STOP}
    assert set(load_base(folder).conventions.ends) == set(file.tokenizer.convert_tokens_to_ids([END, STOP]))


def test_an_end_of_turn_that_the_file_names_needs_no_template(file: File, folder: Path) -> None:
    file.template = ""
    file.metadata["tokenizer.ggml.eot_token_id"] = file.tokenizer.convert_tokens_to_ids(USER)
    made = import_gguf(file.write(), folder)
    assert set(made.ends) == {USER, STOP}
    assert not made.chat


@pytest.mark.parametrize(("add_bos", "begins"), [(True, (0,)), (False, ())])
def test_a_text_begins_as_the_file_says(file: File, folder: Path, add_bos: bool, begins: tuple[int, ...]) -> None:
    file.metadata["tokenizer.ggml.add_bos_token"] = add_bos
    import_gguf(file.write(), folder)
    assert load_base(folder).conventions.begins == begins


def test_what_was_written_is_told(file: File, folder: Path) -> None:
    made = import_gguf(file.write(), folder)
    assert (made.folder, made.architecture, made.context, made.chat) == (folder, "llama", CONTEXT, True)
    assert made.parameters == file.model.num_parameters()
    assert made.size == sum(path.stat().st_size for path in folder.iterdir())
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_model_that_lies_beside_the_file_is_not_looked_at(file: File, folder: Path) -> None:
    (file.path.parent / "config.json").write_text("{")
    (file.path.parent / "tokenizer_config.json").write_text("{")
    import_gguf(file.write(), folder)


def test_an_empty_folder_may_be_there(file: File, folder: Path) -> None:
    folder.mkdir(parents=True)
    import_gguf(file.write(), folder)
    assert (folder / "model.safetensors").exists()


# What is refused


def test_a_file_that_is_not_there_or_no_gguf(tmp_path: Path, folder: Path) -> None:
    assert "No such file" in refusal(lambda: import_gguf(tmp_path / "nothing.gguf", folder))
    assert "Is a directory" in refusal(lambda: import_gguf(tmp_path, folder))
    (tmp_path / "text.gguf").write_text("a text")
    assert "is not a GGUF file" in refusal(lambda: import_gguf(tmp_path / "text.gguf", folder))
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00\x10")
    assert "cannot be read as GGUF" in refusal(lambda: import_gguf(tmp_path / "cut.gguf", folder))


def test_an_architecture_that_transformers_does_not_read(file: File, folder: Path) -> None:
    file.architecture = "clip"
    assert "its architecture clip cannot be imported" in refusal(lambda: import_gguf(file.write(), folder))
    assert not folder.exists()


def test_a_file_without_some_of_its_weights(file: File, folder: Path) -> None:
    file.lacks = "layers.1.mlp.up_proj"
    assert "weights lack model.layers.1.mlp.up_proj.weight" in refusal(lambda: import_gguf(file.write(), folder))
    assert [*folder.parent.iterdir()] == []


def test_a_part_of_a_model(file: File, folder: Path) -> None:
    file.metadata["split.count"] = 3
    assert "one of 3 parts" in refusal(lambda: import_gguf(file.write(), folder))


def test_a_folder_that_is_in_use(file: File, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    assert "is not empty" in refusal(lambda: import_gguf(file.write(), folder))
    assert "is a file" in refusal(lambda: import_gguf(file.path, folder / "mine.txt"))
    assert "cannot be written" in refusal(lambda: import_gguf(file.path, folder / "mine.txt" / "below"))
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_without_the_package_the_way_out_is_named(file: File, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ".[gguf]" in refusal(lambda: import_gguf(file.write(), folder), ConfigError)


# Where a turn ends


def template(tokenizer: Any, text: str) -> Any:
    tokenizer.chat_template = text
    return tokenizer


@pytest.mark.parametrize(
    ("text", "token"),
    [
        (TEMPLATE, END),
        ("{% for m in messages %}{{ m['content'] }} <|stop|>{% endfor %}", STOP),
        ("{% for m in messages %}{{ m['content'] }}\nUser: {% endfor %}", None),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", None),
        ("{{ raise_exception('only one turn') }}", None),
        (None, None),
    ],
)
def test_the_token_that_a_template_ends_a_turn_with(file: File, text: str, token: str | None) -> None:
    found = turn_end(template(file.tokenizer, text))
    assert found == (None if token is None else file.tokenizer.convert_tokens_to_ids(token))
