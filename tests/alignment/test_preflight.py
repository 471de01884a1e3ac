"""What would stop a run before it has computed anything, found from names, sizes and beginnings alone."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from alignment import capacity
from alignment.capacity import Device
from alignment.config import build_config
from alignment.errors import ConfigError
from alignment.judging import regression
from alignment.preflight import faults_of, require_startable


def told(values: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    return [(fault.fields, fault.message) for fault in faults_of(build_config(values))]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a model of 10,000,000 weights and a context of 32, as its headers say."""
    folder = tmp_path / "model"
    folder.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [10_000, 1_000], "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "config.json").write_text(json.dumps({"n_positions": 32}), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


def test_the_defaults_can_start() -> None:
    assert told({}) == []
    require_startable(build_config({}))


def test_everything_at_once(tmp_path: Path) -> None:
    """A bound out of reach, a file, a model's folder and a function that are not there."""
    values = {
        "data": {"path": str(tmp_path / "none.csv")},
        "base": {"model": str(tmp_path / "nowhere")},
        "reward": {"kind": "function", "function": "nobody_s"},
        "prompts": {"count": 8, "exclude": str(tmp_path / "used.txt")},
        "validation": {"min_distinct_prompts": 2},
    }
    assert [fields[0] for fields, _ in told(values)] == [
        "prompts.count",
        "data.path",
        "prompts.exclude",
        "base.model",
        "reward.function",
    ]
    with pytest.raises(ConfigError) as raised:
        require_startable(build_config(values))
    assert len(raised.value.faults) == 5
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_that_is_not_there(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": ["a"], "stars": ["1"]}), file)
    else:
        file.write_text("text,stars\na,1\n" if kind == "csv" else '{"text": "a", "stars": "1"}\n', encoding="utf-8")
    ((_, message),) = told({"data": {"path": str(file)}})
    assert "has no column `label` (it has `text`, `stars`)" in message
    assert told({"data": {"path": str(file), "label_column": "stars"}}) == []


@pytest.mark.parametrize(("tokens", "refused"), [(32, False), (33, True)])
def test_the_context_of_the_base_model_as_its_config_tells_it(model: Path, tokens: int, refused: bool) -> None:
    found = told({"base": {"model": str(model)}, "sampling": {"total_tokens": tokens}})
    assert [fields for fields, _ in found] == ([("sampling.total_tokens", "base.model")] if refused else [])


@pytest.mark.parametrize(
    ("adapter", "memory", "refused"),
    [
        ("none", 159_999_999, True),
        ("none", 160_000_000, False),
        ("lora", 80_000_000, False),
        ("lora", 63_000_000, True),
    ],
)
def test_a_base_model_that_the_memory_cannot_hold(
    model: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, memory: int, refused: bool
) -> None:
    """Ten million weights: with a gradient and two moments 16 bytes each. Where they are frozen 4, twice where
    sampling lays them out anew, less what an estimate may be off by. The config tells nothing of activations."""
    monkeypatch.setattr(capacity, "device", lambda: Device("cpu", "this machine", memory))
    found = told({"base": {"model": str(model)}, "sampling": {"total_tokens": 32}, "dpo": {"adapter": adapter}})
    assert {fields[0] for fields, _ in found} == ({"base.model"} if refused else set())
    assert any("dpo.adapter to lora" in message for _, message in found) == (adapter == "none" and refused)
    assert not (refused and adapter == "none") or "about 160 MB (weights 40 MB, " in found[0][1]


def test_each_stage_that_cannot_fit_is_a_fault_with_what_helps_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, whose memory the copy of the base does not take; where the same helps, stages share one."""
    monkeypatch.setattr(capacity, "device", lambda: Device("cuda", "Card A", 30_000_000))
    monkeypatch.setattr(capacity, "machine_memory", lambda: 10**9)
    given = {"base": {"model": str(model)}, "sampling": {"total_tokens": 32}}
    messages = {message.split(": ")[1].split(" need")[0]: message for _, message in told(given)}
    policy, samples, evaluation, reference = messages.values()
    assert " ".join(messages) == "the stage policy the stage samples the stages before and after the stage reference"
    assert "the stage policy needs about 160 MB (weights 40 MB, optimizer 80 MB, gradients 40 MB), and Card A" in policy
    assert policy.endswith(
        "has 30 MB: set dpo.adapter to lora, then base.load_in to 4bit and dpo.precision to bf16 (about 5 MB with both)"
    )
    assert "need about 40 MB (weights 40 MB), and Card A has 30 MB: " in evaluation
    assert evaluation.endswith("set sampling.precision and evaluation.precision to bf16 (about 20 MB with that)")
    assert samples.endswith("set sampling.precision to bf16 (about 20 MB with that)")
    assert "set base.load_in to 4bit and dpo.precision to bf16 and dpo.adapter to lora (about" in reference


@pytest.mark.parametrize(
    ("dpo", "told_of"),
    [
        ({}, ["the stage base needs about 40 MB of the machine's own memory, and this machine has 30 MB: take"]),
        (
            {"processes": 2, "sharding": "fsdp"},
            ["the stage base needs about 40 MB", "the stage policy needs about 80 MB of the machine's own memory"],
        ),
    ],
)
def test_what_is_copied_and_what_is_sharded_has_to_fit_the_machine_s_own_memory(
    model: Path, monkeypatch: pytest.MonkeyPatch, dpo: dict[str, Any], told_of: list[str]
) -> None:
    monkeypatch.setattr(capacity, "device", lambda: Device("cuda", "Card A", 10**9))
    monkeypatch.setattr(capacity, "machine_memory", lambda: 30_000_000)
    given = {"base": {"model": str(model)}, "sampling": {"total_tokens": 32}, "dpo": dpo}
    found = told(given)
    assert len(found) == len(told_of)
    assert all(expected in message for expected, (_, message) in zip(told_of, found, strict=True))
    with capacity.assumed(1.0):
        assert told(given) == []


@pytest.mark.parametrize("content", [b"", b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 8) + b'{"a":{}}'])
def test_a_file_of_weights_that_broke_off_is_named_with_the_way_out(
    model: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(capacity, "device", lambda: Device("cpu", "this machine", 10**12))
    (model / "model.safetensors").write_bytes(content)
    ((fields, message),) = told({"base": {"model": str(model)}, "sampling": {"total_tokens": 32}})
    assert fields == ("base.model",)
    assert "model.safetensors" in message
    assert message.endswith("get the file again")


def test_weights_that_end_before_their_header_says_are_cut_off(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the model itself, and of an adapter over it: four floats take 16 bytes, and one is missing."""
    monkeypatch.setattr(capacity, "device", lambda: Device("cpu", "this machine", 10**12))
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(16)
    sizes = f"({len(whole) - 1} of {len(whole)} bytes)"
    cut = f"the file is cut off {sizes}, as after a download that broke off; get it again"
    adapter = model.with_name("adapter")
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "../model"}))
    (adapter / "adapter_model.safetensors").write_bytes(whole[:-1])
    given = {"base": {"model": str(adapter)}, "sampling": {"total_tokens": 32}}
    assert told(given) == [(("base.model",), f"base.model {adapter}/adapter_model.safetensors: {cut}")]
    (adapter / "adapter_model.safetensors").write_bytes(whole)
    assert told(given) == []
    (model / "model.safetensors").write_bytes(whole[:-1])
    given["base"] = {"model": str(model)}
    assert told(given) == [(("base.model",), f"base.model {model}/model.safetensors: {cut}")]


def test_weights_that_a_folder_holds_twice_count_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some models bring the weights in their authors' own layout beside transformers' shards."""
    monkeypatch.setattr(capacity, "device", lambda: Device("cpu", "this machine", 160_000_000))
    (model / "consolidated.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    values: dict[str, Any] = {"base": {"model": str(model)}, "sampling": {"total_tokens": 32}}
    assert told(values) == []
    monkeypatch.setattr(capacity, "device", lambda: Device("cpu", "this machine", 159_999_999))
    assert len(told(values)) == 1


def test_a_broken_file_of_data_is_named_with_its_field(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    file.write_bytes(b"PAR1 and no more")
    ((fields, message),) = told({"data": {"path": str(file)}})
    assert fields == ("data.path",)
    assert str(file) in message
    missing = {"source": "column", "eval_path": str(tmp_path / "none.jsonl")}
    assert [fields for fields, _ in told({"prompts": missing})] == [("prompts.eval_path",)]


def test_a_task_that_is_no_data_is_a_fault_of_its_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found while somebody waits, without lm-eval being imported."""
    monkeypatch.setattr(regression, "find_spec", lambda _: object())
    (tmp_path / "task.yaml").write_text("task: one\nprocess_docs: !function spy.run\n", encoding="utf-8")
    ((fields, message),) = told({"evaluation": {"tasks": [str(tmp_path / "task.yaml")]}})
    assert fields == ("evaluation.tasks",)
    assert "!function, which run code, are refused" in message


def test_registered_models_and_the_hub_are_not_asked() -> None:
    values = {"base": {"model": "models:/mine@champion"}, "reward": {"model": "some/model"}, "data": {"path": "a/name"}}
    assert told(values) == []
