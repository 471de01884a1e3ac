"""A policy that is trained in bf16, on a base held so: its reference, its adapter, its keys, and what is refused."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from alignment import bits, capacity, models
from alignment.adapters import load_merged
from alignment.capacity import Device
from alignment.config import build_config
from alignment.errors import ConfigError
from alignment.logprobs import score_completions
from alignment.preflight import faults_of
from alignment.rows import REFERENCED
from tests.alignment.chain import Chain, config, keys

LORA = {"adapter": "lora", "adapter_rank": 4, "learning_rate": 1e-2, "loss": "sigmoid", "precision": "bf16"}
HALF: dict[str, dict[str, Any]] = {"base": {"load_in": "bf16"}, "dpo": LORA}

pytestmark = pytest.mark.filterwarnings("ignore:.*bf16 takes")


@pytest.fixture(scope="module")
def half(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    other = chain.other(tmp_path_factory.mktemp("half"), **HALF)
    for stage in ("reference", "policy"):
        other.folders[stage] = other.run(stage)
    return other


def test_the_reference_is_scored_as_the_policy_computes(chain: Chain, half: Chain) -> None:
    """No sample's own log-prob is taken then, and rounding to 8 bits shows."""
    pairs = chain.counts["reference"]["from_sampling"]
    assert half.counts["reference"] == {"from_sampling": 0, "scored": pairs}
    own, exact = (
        np.array([row["reference_chosen"] for row in REFERENCED.read(each.folders["reference"])])
        for each in (half, chain)
    )
    assert 1e-5 < np.abs(own - exact).max() < 0.5


def test_so_the_policy_starts_at_it(half: Chain) -> None:
    """The first step's loss is ln 2, and its margin 0, but for the rounding of batches of other sizes."""
    first = half.rows[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=0.01)
    assert first["rewards/margin"] == pytest.approx(0, abs=0.02)


def test_its_adapter_is_trained_in_fp32_and_merged_into_the_base_as_it_was(half: Chain, tmp_path: Path) -> None:
    folder = half.folders["policy"]
    for file in (folder / "adapter" / "adapter_model.safetensors", folder / "model" / "model.safetensors"):
        with safe_open(file, "pt") as weights:
            assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float32}  # noqa: SIM118
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    shutil.copytree(half.folders["base"] / "model", tmp_path / f"base-{digest_in(tmp_path / 'adapter')}")
    ids = [[5, 6, 7, 8, 9], [20, 21, 22]]
    merged, own = (
        score_completions(loaded.model, [each[:2] for each in ids], [each[2:] for each in ids], pad_id=0)
        for loaded in (load_merged(tmp_path / "adapter"), models.load_base(folder / "model"))
    )
    assert merged == pytest.approx(own, abs=1e-4)


def digest_in(adapter: Path) -> str:
    import json

    name: str = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    return name.removeprefix("../base-")


def test_keys_hold_it_where_it_is_not_the_default() -> None:
    exact, bf16, half = keys(config()), keys(config(dpo={"precision": "bf16"})), keys(config(**HALF))
    assert exact["samples"] == bf16["samples"] == half["samples"]
    assert exact["base"] == half["base"]
    assert len({found["reference"] for found in (exact, bf16, half)}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": {"load_in": "bf16"}}, r"base\.load_in = bf16 holds rounded weights, .*: set dpo\.adapter to lora"),
        ({"base": {"load_in": "4bit"}, "dpo": {"adapter": "lora"}}, r"computes in bf16, and dpo\.precision = fp32"),
    ],
)
def test_rounded_weights_are_for_adapters_in_bf16(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"base": {"load_in": "4bit"}, "dpo": {"adapter": "lora", "precision": "bf16"}}, "base.load_in = 4bit"),
        ({"dpo": {"optimizer": "adamw_8bit"}}, "dpo.optimizer = adamw_8bit"),
    ],
)
def test_what_bitsandbytes_does_needs_a_gpu_and_the_library(
    changes: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(kind: str) -> list[str]:
        monkeypatch.setattr(capacity, "device", lambda: Device(kind, "it", None))
        return [fault.message for fault in faults_of(build_config(changes))]

    monkeypatch.setattr(bits, "find_spec", lambda _: None)
    (message,) = told("cpu")
    assert message.startswith(f"{field}: needs a GPU, and this machine has none; set it to ")
    (message,) = told("cuda")
    assert "pip install -e '.[bits]'" in message
    monkeypatch.setattr(bits, "find_spec", lambda _: object())
    assert told("cuda") == []
