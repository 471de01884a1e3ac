"""What there is before anything is loaded: the memory of devices, and the shapes of models by their config.json."""

import json
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment import capacity
from alignment.capacity import Device, device, machine_memory, shapes, unknown
from alignment.config import build_config
from alignment.memory import Shape

LLAMA = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 10}
LLAMA_WEIGHTS = 10 * 8 + 2 * (4 * 8 * 8 + 3 * 8 * 32)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine of 4 kB pages without a GPU and without limits, whose files lie here."""
    for name, folder in (("DEVICES", "dev"), ("PROC", "proc"), ("CGROUPS", "groups")):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(capacity, name, tmp_path / folder)
    (tmp_path / "proc" / "self").mkdir()
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4_000, "SC_PHYS_PAGES": 1_000}.__getitem__)
    monkeypatch.setenv("PATH", str(tmp_path))
    capacity._cards.cache_clear()
    yield tmp_path
    capacity._cards.cache_clear()


def limited(file: Path, value: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value + "\n", encoding="utf-8")


def test_a_machine_without_a_gpu(machine: Path) -> None:
    assert device() == Device("cpu", "this machine", 4_000_000)
    assert device().told == "this machine with 4 MB"


def test_a_machine_of_another_system_is_not_asked(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert device() == Device("cpu", "this machine", None)


def test_a_control_group_s_limit_counts_wherever_it_stands_above(machine: Path) -> None:
    limited(machine / "proc" / "self" / "cgroup", "0::/pod/container")
    limited(machine / "groups" / "pod" / "container" / "memory.max", "max")
    assert machine_memory() == 4_000_000
    limited(machine / "groups" / "pod" / "memory.max", "3000000")
    assert machine_memory() == 3_000_000


def test_the_older_interface_has_a_hierarchy_of_its_own(machine: Path) -> None:
    limited(machine / "proc" / "self" / "cgroup", "5:cpu:/\n4:memory:/pod\n0::/")
    limited(machine / "groups" / "memory" / "pod" / "memory.limit_in_bytes", "2000000")
    assert machine_memory() == 2_000_000


@pytest.mark.parametrize("name", ["nvidia3", "dxg", "kfd"])
def test_a_gpu_whose_memory_nobody_tells_is_no_machine(machine: Path, name: str) -> None:
    (machine / "dev" / name).touch()
    assert device() == Device("cuda", "the GPU", None)


def test_the_largest_card_as_its_driver_s_tool_lists_them(machine: Path) -> None:
    (machine / "dev" / "nvidia0").touch()
    tool = machine / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Card A, 1000'\necho 'Card B, 2000'\n", encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    assert device() == Device("cuda", "Card B", 2_000 * 2**20)


def test_the_shapes_of_models_that_are_trained_here() -> None:
    """GPT-2 of 2 layers of 128 with 1,024 tokens and 64 positions; DistilBERT of 2 layers of 64."""
    found = shapes(build_config({}))
    assert found["base"].weights == (1_024 + 64) * 128 + 2 * 12 * 128 * 128
    assert found["reward"].weights == (1_024 + 64) * 64 + 2 * 12 * 64 * 64


def folder_of(folder: Path, config: dict[str, Any], shape: list[int] | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if shape:
        header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def test_a_folder_s_weights_are_those_that_its_files_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", LLAMA, [70, 10])
    found = shapes(build_config({"base": {"model": str(folder)}}))["base"]
    assert (found.weights, found.layers, found.inner, found.keys) == (700, 2, 32, 8)


def test_a_config_without_sizes_leaves_the_weights(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", {}, [70, 10])
    assert shapes(build_config({"base": {"model": str(folder)}}))["base"] == Shape(700)


def test_an_adapter_s_base_is_what_takes_memory(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "model", LLAMA, [70, 10])
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").touch()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}), encoding="utf-8")
    assert shapes(build_config({"base": {"model": str(adapter)}}))["base"].weights == 700


def test_a_model_on_the_hub_is_known_by_its_config_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is fetched, that file alone, only where that is asked for."""
    import huggingface_hub

    wanted: list[str] = []
    file = folder_of(tmp_path / "cached", LLAMA | {"tie_word_embeddings": True}) / "config.json"

    def fetched(name: str, part: str, *, revision: str) -> str:
        wanted.append(f"{name} {part} {revision}")
        return str(file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    config = build_config({"base": {"model": "some/model", "revision": "v2"}})
    assert "base" not in shapes(config)
    assert wanted == []
    assert shapes(config, fetch=True)["base"].weights == LLAMA_WEIGHTS
    assert wanted == ["some/model config.json v2"]
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(file))
    assert shapes(config)["base"].weights == LLAMA_WEIGHTS
    assert len(wanted) == 1


def test_a_hub_that_does_not_answer_is_for_the_loading_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "base" not in shapes(build_config({"base": {"model": "some/model"}}), fetch=True)


def test_models_whose_shape_nobody_can_tell_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    parts = [{"name": "own", "kind": "classifier", "model": "some/judge"}]
    config = build_config({"base": {"model": "some/base"}, "reward": {"kind": "sum", "parts": parts}})
    assert unknown(config, shapes(config)) == ["base.model some/base", "reward.parts.own.model some/judge"]
    assert unknown(build_config({}), shapes(build_config({}))) == []


def test_a_gpu_that_is_planned_for_need_not_be_here() -> None:
    with capacity.assumed(24, 4):
        assert (device(), capacity.cards()) == (Device("cuda", "the GPU", 24 * 10**9), 4)
    assert not capacity.is_assumed()
