"""GGUF files that are written: read back, they are the model; what cannot be written is refused with the way out.

transformers' reader, which undoes each architecture's layout by itself, is the oracle. The fields and tensors of a real
model (SmolLM2-135M) were once compared with those of llama.cpp's own converter, and are the same.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import ModelError
from alignment.gguf import import_gguf
from alignment.gguf_writing import SPLITS, export_gguf, split_of
from alignment.models import load_base

pytest.importorskip("gguf")
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 128},
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Callable[..., Path]:
    """`folder_of(kind, **fields)`: a random model of an architecture and its tokenizer in a folder."""

    def make(kind: str, **fields: Any) -> Path:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        folder = tmp_path_factory.mktemp(kind)
        sizes = SIZES | {"vocab_size": len(tiny_tokenizer) + 3, "initializer_range": 0.2} | fields
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    tiny_gpt2(vocab_size=len(tiny_tokenizer)).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def fields(file: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(str(file)).fields.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_read_back_is_the_model(kind: str, folder_of: Callable[..., Path], tmp_path: Path) -> None:
    import torch

    folder = folder_of(kind, **KINDS[kind])
    export_gguf(folder, tmp_path / "a.gguf")
    import_gguf(tmp_path / "a.gguf", tmp_path / "back")
    ours, theirs = load_base(folder), load_base(tmp_path / "back")
    text = "the film was a fine film"
    ids = torch.tensor(ours.encode([text]))
    assert ids.tolist() == theirs.encode([text])
    with torch.no_grad():
        before, after = (model(ids).logits.log_softmax(-1) for model in (ours.model, theirs.model))
    assert (before - after).abs().max() < 0.02  # weights are rounded to fp16
    assert ours.conventions.ends == theirs.conventions.ends
    assert fields(tmp_path / "a.gguf")["tokenizer.ggml.pre"] == "gpt-2"


def test_the_model_that_is_trained_here_is_written(gpt2: Path, tmp_path: Path) -> None:
    export_gguf(gpt2, tmp_path / "a.gguf")
    found = fields(tmp_path / "a.gguf")
    assert found["general.architecture"] == "gpt2"
    assert (found["gpt2.context_length"], found["gpt2.block_count"]) == (64, 2)


def test_no_gpu_is_asked_for(gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    export_gguf(gpt2, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").is_file()


def test_a_chat_template_and_the_end_of_its_turn_come_along(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = folder_of("llama")
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|endoftext|>{% endfor %}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    export_gguf(folder, tmp_path / "a.gguf")
    found = fields(tmp_path / "a.gguf")
    assert found["tokenizer.chat_template"] == template
    assert (found["tokenizer.ggml.eos_token_id"], found["tokenizer.ggml.add_bos_token"]) == (0, False)


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("gpt_neox", {}, r"the architecture gpt_neox is none of llama, mistral, .* convert_hf_to_gguf\.py"),
        ("mistral", {"sliding_window": 16}, "a window of 16 tokens"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}},
            r"its positions are scaled \(linear\)",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(
    kind: str, changes: dict[str, Any], told: str, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=told):
        export_gguf(folder_of(kind, **changes), tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_a_tokenizer_without_a_name_in_llama_cpp_is_refused(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = folder_of("llama")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(ModelError, match=r"no byte-level BPE that llama.cpp knows"):
        export_gguf(folder, tmp_path / "a.gguf")


def test_a_file_with_other_numbers_is_refused(
    folder_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignment.gguf_writing._arranged", lambda _name, weight, *_: weight)
    with pytest.raises(ModelError, match="read back, the file's log-probs differ by"):
        export_gguf(folder_of("llama"), tmp_path / "a.gguf")


BYTES = {"type": "ByteLevel", "add_prefix_space": False}
LLAMA, QWEN = SPLITS


@pytest.mark.parametrize(
    ("before", "name"),
    [
        (BYTES, "gpt-2"),
        (BYTES | {"use_regex": False}, ""),
        (BYTES | {"add_prefix_space": True}, ""),
        ({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES]}, "smollm"),
        (
            {"pretokenizers": [{"type": "Split", "pattern": {"Regex": LLAMA}}, BYTES | {"use_regex": False}]},
            "llama-bpe",
        ),
        ({"pretokenizers": [{"type": "Split", "pattern": {"Regex": QWEN}}, BYTES | {"use_regex": False}]}, "qwen2"),
        ({"pretokenizers": [{"type": "Split", "pattern": {"Regex": r"\d"}}, BYTES | {"use_regex": False}]}, ""),
        ({"type": "Metaspace"}, ""),
    ],
)
def test_how_a_tokenizer_takes_a_text_apart_has_a_name(before: dict[str, Any], name: str) -> None:
    assert split_of({"model": {"type": "BPE"}, "pre_tokenizer": before}) == name
    assert split_of({"model": {"type": "Unigram"}, "pre_tokenizer": before}) == ""
