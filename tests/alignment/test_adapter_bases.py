"""An adapter over a base that is another one: refused where that is known, told where names alone differ."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from alignment import adapter_bases, adapters, models
from alignment.errors import ModelError
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

    def test_it_is_small_whatever_the_weights_are(self) -> None:
        """64 values of 4 bytes are at most 344 letters."""
        found = json.loads(adapter_bases.fingerprint(load("llama", vocab_size=4_096).model))
        assert found["model.embed_tokens.weight"][0] == [4_096, 32]
        assert max(len(values) for _, values in found.values()) <= 344


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

    @pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
    def test_a_rounded_copy_of_its_base_is_taken_and_told_in_a_line(
        self, adapter: Path, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: torch.dtype
    ) -> None:
        copy = models.load_base(base)
        copy.model.to(kind)
        models.save(copy, tmp_path / "copy")
        adapters.load_merged(over(adapter, "../copy"))
        assert caplog.messages == [
            f"base.model {adapter}: the weights of its base ../copy are off by rounding, as to bf16, from those that "
            "it was trained over; if that is no copy of them, set `base_model_name_or_path` in adapter_config.json to "
            "the base that it was trained on"
        ]

    def test_a_base_that_was_an_adapter_itself_may_be_merged_by_peft_in_bf16(
        self, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Here it was merged in fp32, over the weights of the hub's model, which are in bf16."""
        hub = models.load_base(base)
        models.save(replace(hub, model=hub.model.to(torch.bfloat16)), base)
        peft_folder(base, tmp_path / "first", lora(target_modules=["q_proj", "down_proj"]))
        second = trained(adapters.load_merged(tmp_path / "first"))
        mark = adapter_bases.fingerprint(second.model)
        adapters.save(second.model, tmp_path / "second", "../merged", fingerprint=mark)
        read = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        PeftModel.from_pretrained(read, tmp_path / "first").merge_and_unload().save_pretrained(tmp_path / "merged")
        hub.tokenizer.save_pretrained(tmp_path / "merged")
        caplog.clear()
        found = adapters.load_merged(tmp_path / "second")
        assert logprobs(found.model) == pytest.approx(logprobs(second.model), abs=0.05)
        assert [message for message in caplog.messages if "are off by rounding" in message] == caplog.messages
        assert len(caplog.messages) == 1

    @pytest.mark.parametrize("rounded", [False, True])
    @pytest.mark.parametrize("layer", ["model.embed_tokens", "model.layers.1.mlp.up_proj"])
    def test_one_weight_that_is_another_is_refused(
        self, adapter: Path, base: Path, tmp_path: Path, layer: str, *, rounded: bool
    ) -> None:
        """1% is more than the 0.4% that bf16 rounds."""
        other = models.load_base(base)
        with torch.no_grad():
            other.model.get_submodule(layer).weight *= 1.01
        models.save(replace(other, model=other.model.to(torch.bfloat16) if rounded else other.model), tmp_path / "x")
        folder = over(adapter, "../x")
        assert refusal(lambda: adapters.load_merged(folder)) == (
            f"base.model {folder}: is an adapter for another base: it was trained over other weights than its base "
            f"../x has, {layer} for one; set `base_model_name_or_path` in adapter_config.json to the base that it was "
            "trained on"
        )

    @pytest.mark.parametrize(("other", "told"), [(-1e-9, []), (2e-8, []), (-1e-6, ["refused"])])
    def test_values_next_to_zero_are_compared_by_what_fp16_can_tell(
        self, tmp_path: Path, other: float, told: list[str]
    ) -> None:
        def model(value: float) -> torch.nn.Module:
            made = torch.nn.Linear(4, 4, bias=False)
            torch.nn.init.constant_(made.weight, value)
            return made

        save_file({}, tmp_path / "a", metadata={adapter_bases.FINGERPRINT: adapter_bases.fingerprint(model(1e-9))})
        found = []
        try:
            adapter_bases.require_recorded("base.model x", tmp_path / "a", "b", model(other))
        except ModelError:
            found.append("refused")
        assert found == told


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
