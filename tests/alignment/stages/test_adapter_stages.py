"""Adapters in the pipeline: what the policy's stage keeps, what an adapter becomes as a base, and what is in keys."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from alignment import adapter_bases, adapters, models
from alignment.config import build_config
from alignment.errors import ModelError
from alignment.logprobs import score_completions
from alignment.stages.policy import name_of_base
from tests.alignment.chain import STEPS, Chain, config, keys
from tests.alignment.test_adapters import lora, peft_folder

LORA = {"adapter": "lora", "adapter_rank": 4, "learning_rate": 1e-2}
IDS = [[5, 6, 7, 8, 9, 10], [20, 21, 22, 23], [40, 50, 60]]


def logprobs(model: Any) -> Any:
    return score_completions(model, [ids[:2] for ids in IDS], [ids[2:] for ids in IDS], pad_id=0)


# The policy


@pytest.fixture(scope="module")
def trained(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The shrunken default with a LoRA adapter in place of all weights."""
    other = chain.other(tmp_path_factory.mktemp("lora"), dpo=LORA)
    other.folders["policy"] = other.run("policy")
    return other


def test_the_policy_is_a_whole_model_and_the_adapter_is_kept_beside_it(trained: Chain, tmp_path: Path) -> None:
    """The base with the adapter laid over it gives the log-probs of the policy."""
    policy, base = (models.load_base(trained.folders[stage] / "model").model for stage in ("policy", "base"))
    own = logprobs(policy)
    assert np.abs(own - logprobs(base)).max() > 0.01
    shutil.copytree(trained.folders["policy"] / "adapter", tmp_path / "adapter")
    name = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    shutil.copytree(trained.folders["base"] / "model", tmp_path / "adapter" / name)
    assert logprobs(adapters.load_merged(tmp_path / "adapter").model) == pytest.approx(own, abs=1e-4)


def test_the_adapter_records_the_weights_of_its_base(trained: Chain) -> None:
    base = models.load_base(trained.folders["base"] / "model").model
    assert recorded(trained.folders["policy"] / "adapter") == adapter_bases.fingerprint(base)


def recorded(folder: Path) -> str:
    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        return str(weights.metadata()["plumbline.base"])


def test_it_counts_what_was_trained(trained: Chain) -> None:
    """Rank 4 on c_attn (16 x 48), attention's c_proj (16 x 16), c_fc (16 x 64) and its c_proj (64 x 16), one layer."""
    counts = trained.counts["policy"]
    assert counts["trainable_parameters"] == 4 * (16 + 48 + 16 + 16 + 16 + 64 + 64 + 16)
    base = models.load_base(trained.folders["base"] / "model").model
    assert counts["all_parameters"] - counts["trainable_parameters"] == base.num_parameters()
    assert (counts["steps"], counts["stopped_early"]) == (STEPS, 0)


def test_a_policy_of_all_weights_has_no_adapter(chain: Chain) -> None:
    assert not (chain.folders["policy"] / "adapter").exists()
    assert "trainable_parameters" not in chain.counts["policy"]


def test_what_follows_takes_it_as_any_policy(chain: Chain, trained: Chain) -> None:
    trained.folders["after"] = trained.run("after")
    trained.run("report")
    assert trained.counts["after"] == chain.counts["after"]


@pytest.mark.parametrize(
    ("model", "revision", "expected"),
    [
        ("train", "main", ("../base-0123456789ab", "main")),
        ("org/base", "v2", ("org/base", "v2")),
    ],
)
def test_an_adapter_names_its_base_by_no_path_of_this_machine(
    model: str, revision: str, expected: tuple[str, str]
) -> None:
    found = build_config({"base": {"model": model, "revision": revision}})
    assert name_of_base(found, "0123456789abcdef") == expected


def test_a_local_base_is_named_as_a_folder_beside_the_adapter(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    found = build_config({"base": {"model": str(tmp_path / "mine")}})
    assert name_of_base(found, "0123") == ("../mine", "main")
    (tmp_path / "mine" / "adapter_config.json").write_text("{}")
    assert name_of_base(found, "0123") == ("../mine-merged", "main")


# An adapter as the base


@pytest.fixture
def given(base_folder: Path, tmp_path: Path) -> Path:
    """An adapter that names the folder beside it."""
    shutil.copytree(base_folder, tmp_path / "given" / "base")
    folder = tmp_path / "given" / "adapter"
    peft_folder(tmp_path / "given" / "base", folder, lora(target_modules=["c_attn"], fan_in_fan_out=True))
    rename(folder, "../base")
    return folder


def rename(folder: Path, base: str) -> None:
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": base}))


def test_the_base_s_stage_keeps_the_merged_model(chain: Chain, given: Path, tmp_path: Path) -> None:
    other = chain.other(tmp_path, base={"model": str(given)})
    found = models.load_base(other.run("base") / "model").model
    assert logprobs(found) == pytest.approx(logprobs(adapters.load_merged(given).model), abs=1e-6)
    assert other.counts == {"base": {"copied": 1}}


class TestKeys:
    """What an adapter decides."""

    @staticmethod
    def base_key(folder: Path) -> str:
        return keys(build_config({"base": {"model": str(folder)}}))["base"]

    def test_the_base_s_hold_the_adapter_s_content_and_its_base_s_wherever_they_lie(
        self, given: Path, tmp_path: Path
    ) -> None:
        before = self.base_key(given)
        shutil.copytree(tmp_path / "given", tmp_path / "moved")
        assert self.base_key(tmp_path / "moved" / "adapter") == before
        (given / "README.md").write_text("notes")
        assert self.base_key(given) == before

    @pytest.mark.parametrize("file", ["adapter/adapter_model.safetensors", "base/config.json"])
    def test_an_edit_of_either_moves_it(self, given: Path, file: str) -> None:
        before = self.base_key(given)
        with (given.parent / file).open("ab") as stream:
            stream.write(b" ")
        assert self.base_key(given) != before

    def test_a_base_on_the_hub_counts_by_its_name_and_revision(self, given: Path) -> None:
        rename(given, "org/one")
        one = self.base_key(given)
        rename(given, "org/two")
        assert self.base_key(given) != one

    def test_an_adapter_that_cannot_be_used_is_refused_when_the_key_is_made(
        self, given: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(given.parent)  # from where a base is looked for too
        shutil.rmtree(given.parent / "base")
        with pytest.raises(ModelError, match=r"its base \.\./base is no folder; set `base_model_name_or_path`"):
            self.base_key(given)

    @pytest.mark.parametrize("change", [{"adapter_rank": 8}, {"adapter_alpha": 8}, {"adapter_targets": ["c_attn"]}])
    def test_the_policy_s_hold_the_adapter_s_settings_where_one_is_trained(self, change: dict[str, Any]) -> None:
        """And no other stage's."""
        lora, none = ({"adapter": adapter} for adapter in ("lora", "none"))
        one, two = keys(config(dpo=lora)), keys(config(dpo=lora | change))
        assert one["policy"] != two["policy"]
        assert one["reference"] == two["reference"]
        assert keys(config(dpo=none)) == keys(config(dpo=none | change))
        assert keys(config(dpo=none))["policy"] != one["policy"]
