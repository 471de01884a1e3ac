"""GGUF files: what was imported is the model that was written into the file, and anything else is refused in a line."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignment.errors import ConfigError, InputError
from alignment.gguf import import_gguf, turn_end
from alignment.models import load_base

gguf = pytest.importorskip("gguf")

HEADS, KEYS, WIDTH, CONTEXT = 4, 2, 32, 48
USER, END, STOP = "<|user|>", "<|end|>", "<|stop|>"
TEMPLATE = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>\n{% endfor %}"
NORMAL, CONTROL = 1, 3


@dataclass
class File:
    """A GGUF file of a small random Llama, as llama.cpp's converter writes one."""

    path: Path
    model: Any
    tokenizer: Any
    metadata: dict[str, Any] = field(default_factory=dict)
    template: str = TEMPLATE
    architecture: str = "llama"
    lacks: str = "nothing"
    quantised: bool = False

    def write(self) -> Path:
        config = self.model.config
        writer = gguf.GGUFWriter(self.path, self.architecture)
        writer.add_name("small")
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KEYS)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_rope_dimension_count(WIDTH // HEADS)
        writer.add_vocab_size(config.vocab_size)
        self._write_tokenizer(writer)
        for name, value in self.metadata.items():
            {bool: writer.add_bool, int: writer.add_uint32}[type(value)](name, value)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
        for name, tensor in self.model.state_dict().items():
            stem, _, suffix = name.rpartition(".")
            if name == "lm_head.weight" or stem.endswith(self.lacks):
                continue
            values = tensor.numpy()
            if stem.endswith(("q_proj", "k_proj")):
                values = self._interleaved(values, HEADS if stem.endswith("q_proj") else KEYS)
            if self.quantised and values.ndim == 2:
                kind = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(f"{names.get_name(stem)}.{suffix}", gguf.quantize(values, kind), raw_dtype=kind)
            else:
                writer.add_tensor(f"{names.get_name(stem)}.{suffix}", values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return self.path

    @staticmethod
    def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
        """The two halves of each head's rotation, one beside the other, as llama.cpp rotates them."""
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))

    def _write_tokenizer(self, writer: Any) -> None:
        import json

        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        special = {token["content"] for token in state["added_tokens"]}
        tokens = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([token for token, _ in tokens])
        writer.add_token_types([CONTROL if token in special else NORMAL for token, _ in tokens])
        writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(self.tokenizer.convert_tokens_to_ids(STOP))
        if self.template:
            writer.add_chat_template(self.template)


@pytest.fixture
def file(tmp_path: Path, tiny_tokenizer: Any) -> File:
    from copy import deepcopy

    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [USER, END, STOP]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=HEADS,
                num_key_value_heads=KEYS,
                max_position_embeddings=CONTEXT,
                initializer_range=0.2,
                tie_word_embeddings=True,
            )
        )
    return File(tmp_path / "small.gguf", model.eval(), tokenizer)


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
