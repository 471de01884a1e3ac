"""An adapter over a base that is another one: refused where that is known, told where names alone differ."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment import adapter_bases, adapters, models
from tests.alignment.test_adapters import load, logprobs, lora, peft_folder, refusal, trained

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft, to itself


@pytest.fixture
def base(tmp_path: Path) -> Path:
    models.save(load("llama"), tmp_path / "base")
    return tmp_path / "base"


def over(folder: Path, base: str) -> Path:
    """An adapter's folder that names another base."""
    adapters.name_base(folder, base)
    return folder


class TestFingerprint:
    def test_it_is_that_of_the_base_under_an_adapter(self) -> None:
        plain = adapter_bases.fingerprint(load("llama").model)
        assert adapter_bases.fingerprint(trained(load("llama")).model) == plain
        assert adapter_bases.fingerprint(trained(load("llama"), "embed_tokens", "q_proj").model) == plain

    def test_files_and_floats_do_not_move_it_where_nothing_is_rounded(self, tmp_path: Path) -> None:
        loaded = load("llama")
        loaded.model.to(torch.bfloat16)
        loaded.model.save_pretrained(tmp_path, max_shard_size="10KB")
        loaded.tokenizer.save_pretrained(tmp_path)
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        assert adapter_bases.fingerprint(models.load_base(tmp_path).model) == adapter_bases.fingerprint(
            loaded.model.float()
        )

    def test_another_weight_moves_it(self) -> None:
        one, two = load("llama").model, load("llama").model
        with torch.no_grad():
            two.model.layers[1].mlp.up_proj.weight *= 1.001
        assert adapter_bases.fingerprint(one) != adapter_bases.fingerprint(two)


class TestRecorded:
    @pytest.fixture
    def adapter(self, base: Path, tmp_path: Path) -> Path:
        """An adapter that was trained here, over `base`."""
        loaded = trained(models.load_base(base))
        mark = adapter_bases.fingerprint(loaded.model)
        adapters.save(loaded.model, tmp_path / "adapter", "../base", fingerprint=mark)
        self.on = logprobs(loaded.model)
        return tmp_path / "adapter"

    def test_a_copy_of_its_base_under_another_name_is_taken_in_silence(
        self, adapter: Path, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        shutil.copytree(base, tmp_path / "a-copy")
        found = adapters.load_merged(over(adapter, "../a-copy"))
        assert logprobs(found.model) == pytest.approx(self.on, abs=1e-4)
        assert caplog.messages == []

    def test_another_base_of_the_same_shapes_is_refused(self, adapter: Path, tmp_path: Path) -> None:
        other = load("llama")
        with torch.no_grad():
            other.model.model.embed_tokens.weight += 0.01
        models.save(other, tmp_path / "other")
        folder = over(adapter, "../other")
        found = refusal(lambda: adapters.load_merged(folder))
        assert found.startswith(f"base.model {folder}: is an adapter for another base: it was trained over the weights")
        assert found.endswith(
            "; set `base_model_name_or_path` in adapter_config.json to the base that it was trained on"
        )


class TestShapes:
    @pytest.fixture
    def adapter(self, base: Path, tmp_path: Path) -> Path:
        """An adapter that peft wrote, of rank 4 over layers of 32 columns."""
        peft_folder(base, tmp_path / "adapter", lora(target_modules=["q_proj"]))
        (tmp_path / "adapter" / "README.md").unlink()
        return tmp_path / "adapter"

    @pytest.mark.parametrize(
        ("kind", "changes", "told"),
        [
            (
                "llama",
                {"hidden_size": 64},
                "its model.layers.0.self_attn.q_proj.lora_A is 4 × 32, and over its base ../other it would be 4 × 64",
            ),
            ("gpt2", {}, "its base ../other has none of the layers that it stands on"),
            (
                "llama",
                {"num_hidden_layers": 1},
                "its base ../other has no place for model.layers.1.self_attn.q_proj.lora_A",
            ),
        ],
    )
    def test_a_base_of_other_shapes_is_refused_in_a_line(
        self, adapter: Path, tmp_path: Path, kind: str, changes: dict[str, Any], told: str
    ) -> None:
        models.save(load(kind, **changes), tmp_path / "other")
        folder = over(adapter, "../other")
        assert refusal(lambda: adapters.load_merged(folder)) == (
            f"base.model {folder}: is an adapter for another base: {told}; set `base_model_name_or_path` in "
            "adapter_config.json to the base that it was trained on"
        )

    def test_what_is_no_matter_of_the_base_is_passed_on(self) -> None:
        adapter_bases.require_fit("base.model x", "b", RuntimeError("something else"))


class TestNames:
    @pytest.mark.parametrize(
        ("readme", "named", "told"),
        [
            ("org/Model", "org/Model", False),
            ("org/Model", "../model", False),
            ("'/home/somebody/model/'", "../model", False),
            ("org/model", "../another", True),
            (None, "../another", False),
        ],
    )
    def test_a_base_of_another_name_is_told_once_and_taken(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, readme: str | None, named: str, told: bool
    ) -> None:
        """A copy of a base is called as it is, or as whoever made it liked."""
        folder = tmp_path / "adapter"
        folder.mkdir()
        (tmp_path / "another").mkdir()
        (tmp_path / "model").mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": named}))
        (folder / "adapter_model.safetensors").touch()
        if readme is not None:
            (folder / "README.md").write_text(f"---\nbase_model: {readme}\nlibrary_name: peft\n---\n\n# A card\n")
        for _ in range(2):
            adapters.base_of(folder)
        expected = (
            f"base.model {folder}: its README.md says that it was trained over org/model, and its base here is "
            "../another; if that is no copy of it, set `base_model_name_or_path` in adapter_config.json to the base "
            "that it was trained on"
        )
        assert caplog.messages == ([expected] if told else [])
