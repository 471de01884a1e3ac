"""Adapter folders: what is refused, what base they name, and that merging changes no log-prob."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from alignment import adapters, models
from alignment.config import DPOConfig
from alignment.errors import ModelError, SelfCheckError
from alignment.logprobs import score_completions
from alignment.models import Loaded
from alignment.training.adapter import attach
from tests.alignment.architectures import Spelling, build, tokenizer

IDS = [[5, 6, 7, 8, 9, 10], [20, 21, 22, 23], [40, 50, 60]]
PROMPTS, COMPLETIONS = [ids[:2] for ids in IDS], [ids[2:] for ids in IDS]


def logprobs(model: Any) -> Any:
    return score_completions(model, PROMPTS, COMPLETIONS, pad_id=0)


def load(kind: str, **changes: Any) -> Loaded:
    return Loaded(build(kind, **changes), tokenizer(Spelling(begins=True)), kind)


def trained(loaded: Loaded, *names: str) -> Loaded:
    """The model with a LoRA adapter that is not zero."""
    found = attach(loaded, DPOConfig(adapter="lora", adapter_rank=4, adapter_targets=names), 0)
    return drawn(found)


def drawn(loaded: Loaded) -> Loaded:
    """Every weight of an adapter moved at random, as training would."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if any(part in name for part in ("lora_", "modules_to_save", "ia3_", "token_adapter")):
                weight += torch.randn(weight.shape, generator=draw) * 0.05
    return loaded


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Merging


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "bloom", "qwen2_moe", "mamba", "mamba2", "jamba", "lfm2"])
def test_merged_it_gives_the_log_probs_that_it_gave_and_gives_them_again_when_it_is_loaded(
    kind: str, tmp_path: Path
) -> None:
    loaded = load(kind)
    base = logprobs(loaded.model)
    with_adapter = trained(loaded)
    on = logprobs(with_adapter.model)
    assert np.abs(on - base).max() > 0.01
    merged = adapters.merge(with_adapter)
    assert not adapters.is_attached(merged.model)
    assert logprobs(merged.model) == pytest.approx(on, abs=1e-4)
    models.save(merged, tmp_path)
    assert logprobs(models.load_base(tmp_path).model) == pytest.approx(on, abs=1e-4)


def test_a_tied_output_head_stays_tied(tmp_path: Path) -> None:
    merged = adapters.merge(trained(load("llama", tie_word_embeddings=True)))
    assert merged.model.lm_head.weight is merged.model.model.embed_tokens.weight
    models.save(merged, tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_an_adapter_on_one_of_two_tied_parts_leaves_the_other_as_it_was(kind: str, name: str, tmp_path: Path) -> None:
    """Merged into what both share, it would change both."""
    loaded = trained(load(kind, tie_word_embeddings=True), name, "q_proj")
    on = logprobs(loaded.model)
    merged = adapters.merge(loaded)
    assert not merged.model.config.tie_word_embeddings
    models.save(merged, tmp_path)
    assert logprobs(models.load_base(tmp_path).model) == pytest.approx(on, abs=1e-4)


def test_an_adapter_on_a_layer_that_shares_its_weights_with_others_is_refused() -> None:
    loaded = load("llama")
    for layer in loaded.model.model.layers:
        layer.mlp.up_proj.weight = loaded.model.model.layers[0].mlp.up_proj.weight
    assert refusal(lambda: adapters.merge(trained(loaded, "up_proj"))) == (
        "llama: an adapter stands on weights that several layers share, so it cannot be merged; "
        "take other target modules"
    )


def test_weights_that_are_no_numbers_are_not_merged() -> None:
    loaded = trained(load("llama"))
    loaded.model.base_model.model.model.layers[0].mlp.up_proj.lora_B["default"].weight.data.fill_(torch.nan)
    assert refusal(lambda: adapters.merge(loaded)).startswith("llama: cannot be used for merging its adapter (")


def test_a_merge_that_changes_what_the_model_predicts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one would that leaves the adapter out."""
    loaded = trained(load("llama"))
    monkeypatch.setattr(type(loaded.model.base_model), "merge_and_unload", lambda model, **_: model.unload())
    with pytest.raises(SelfCheckError, match=r"^llama: merged into the weights, its adapter gives log-probs that are "):
        adapters.merge(loaded)


# The folder of an adapter that was trained here


def test_an_adapter_is_kept_as_peft_keeps_it_under_the_name_of_its_base(tmp_path: Path) -> None:
    from peft import PeftModel

    loaded = trained(load("llama"))
    on = logprobs(loaded.model)
    adapters.save(loaded.model, tmp_path / "adapter", "org/base", "v1")
    assert {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json": 0o644,
        "adapter_model.safetensors": 0o644,
    }
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("org/base", "v1")
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 4, 32)
    assert settings["target_modules"] == sorted(settings["target_modules"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks for what transformers has renamed
        again = PeftModel.from_pretrained(build("llama"), str(tmp_path / "adapter"))
    assert logprobs(again) == pytest.approx(on, abs=1e-6)


def test_it_is_the_same_to_the_byte_whenever_it_is_written(tmp_path: Path) -> None:
    for name in ("one", "two"):
        adapters.save(trained(load("llama")).model, tmp_path / name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


# A folder as a base


@pytest.fixture
def base_folder(tmp_path: Path) -> Path:
    """A small Llama whose output head is tied to its embedding."""
    models.save(load("llama", tie_word_embeddings=True), tmp_path / "base")
    return tmp_path / "base"


def peft_folder(base: Path, folder: Path, settings: Any, rows: int = 0) -> Any:
    """Have peft write an adapter on a base into a folder; returns its log-probs."""
    from peft import get_peft_model

    model = models.load_base(base).model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights
        if rows:
            model.resize_token_embeddings(rows, mean_resizing=False)
        attached = drawn(Loaded(get_peft_model(model, settings).eval(), None)).model
        attached.save_pretrained(str(folder))
    return logprobs(attached)


def lora(**changes: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(**{"r": 4, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"} | changes)


def ia3() -> Any:
    from peft import IA3Config

    return IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM")


KINDS: dict[str, Callable[[], Any]] = {
    "LoRA": lora,
    "rsLoRA": lambda: lora(use_rslora=True),
    "DoRA": lambda: lora(use_dora=True),
    "of several ranks": lambda: lora(rank_pattern={"up_proj": 2}, alpha_pattern={"up_proj": 3}),
    "with a head that was trained whole": lambda: lora(modules_to_save=["lm_head"]),
    "with an embedding that was trained whole": lambda: lora(modules_to_save=["embed_tokens"]),
    "on the embedding": lambda: lora(target_modules=["embed_tokens", "v_proj"]),
    "on embedding and head alike": lambda: lora(target_modules=["embed_tokens", "v_proj"], ensure_weight_tying=True),
    "IA3": ia3,
}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_its_base_is_loaded_and_the_adapter_merged_as_peft_has_it(
    settings: Callable[[], Any], base_folder: Path, tmp_path: Path
) -> None:
    on = peft_folder(base_folder, tmp_path / "adapter", settings())
    merged = adapters.load_merged(tmp_path / "adapter")
    assert {weight.dtype for weight in merged.model.parameters()} == {torch.float32}
    assert logprobs(merged.model) == pytest.approx(on, abs=1e-4)
    assert np.abs(on - logprobs(models.load_base(base_folder).model)).max() > 0.01
    models.save(merged, tmp_path / "merged")
    assert logprobs(models.load_base(tmp_path / "merged").model) == pytest.approx(on, abs=1e-4)


def test_an_adapter_with_tokens_of_its_own_brings_their_embeddings_and_its_tokenizer(
    base_folder: Path, tmp_path: Path
) -> None:
    on = peft_folder(base_folder, tmp_path / "adapter", lora(modules_to_save=["embed_tokens", "lm_head"]), rows=70)
    own = models.load_base(base_folder).tokenizer
    own.add_tokens(["<new>"])
    own.save_pretrained(tmp_path / "adapter")
    merged = adapters.load_merged(tmp_path / "adapter")
    assert merged.conventions.embeddings == 70
    assert merged.encode(["A<new>"])[0][-1] == 64
    assert logprobs(merged.model) == pytest.approx(on, abs=1e-4)


class TestBase:
    """Where an adapter's base is looked for."""

    @pytest.fixture
    def named(self, tmp_path: Path) -> Callable[..., Path]:
        """`named(name)`: an adapter that names its base so."""

        def build(name: Any, **settings: Any) -> Path:
            folder = tmp_path / "adapter"
            folder.mkdir(exist_ok=True)
            (folder / "adapter_config.json").write_text(
                json.dumps({"base_model_name_or_path": name, "peft_type": "LORA"} | settings)
            )
            save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
            return folder

        return build

    def test_beside_the_adapter(self, named: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "base").mkdir()
        assert adapters.base_of(named("../base")).folder == tmp_path / "adapter" / ".." / "base"

    def test_from_where_one_stands(
        self, named: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "models" / "base").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert adapters.base_of(named("models/base")).folder == Path("models/base")

    def test_on_the_hub_at_its_revision(self, named: Callable[..., Path]) -> None:
        assert adapters.base_of(named("org/base", revision="v2")) == adapters.BaseOfAdapter(None, "org/base", "v2")
        assert adapters.base_of(named("org/base", revision=None)).revision == "main"

    @pytest.mark.parametrize("name", ["../gone", "/no/such/folder", "~/gone"])
    def test_a_path_without_a_folder_is_not_looked_for_on_the_hub(self, named: Callable[..., Path], name: str) -> None:
        folder = named(name)
        assert refusal(lambda: adapters.base_of(folder)) == (
            f"base.model {folder}: its base {name} is no folder; set `base_model_name_or_path` in adapter_config.json "
            "to the base's hub name or folder"
        )

    @pytest.mark.parametrize("name", [None, "", 3])
    def test_an_adapter_that_names_none_is_refused(self, named: Callable[..., Path], name: Any) -> None:
        folder = named(name)
        assert refusal(lambda: adapters.base_of(folder)) == (
            f"base.model {folder}: adapter_config.json names no base; set `base_model_name_or_path` in it to the "
            "base's hub name or folder"
        )

    def test_an_adapter_on_an_adapter_is_refused(self, named: Callable[..., Path], tmp_path: Path) -> None:
        shutil.copytree(named("org/base"), tmp_path / "base")
        folder = named("../base")
        assert "its base ../base is an adapter itself; merge that one first" in refusal(
            lambda: adapters.base_of(folder)
        )

    def test_a_base_that_cannot_be_used_is_named_with_the_reason(
        self, named: Callable[..., Path], tmp_path: Path
    ) -> None:
        (tmp_path / "base").mkdir()
        folder = named("../base")
        assert refusal(lambda: adapters.load_merged(folder)) == (
            f"base.model {folder}: its base cannot be used: {folder}/../base: no config.json; give a folder that "
            "`save_pretrained` wrote"
        )

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"peft_type": "PREFIX_TUNING"}, "an adapter of the type PREFIX_TUNING cannot be merged into a model"),
            ({"task_type": "SEQ_CLS"}, "is an adapter for the task SEQ_CLS; give one of a causal language model"),
        ],
    )
    def test_an_adapter_of_another_kind_is_refused(
        self, named: Callable[..., Path], settings: dict[str, str], message: str
    ) -> None:
        folder = named("org/base", **settings)
        assert message in refusal(lambda: adapters.base_of(folder))


class TestBroken:
    """What is refused of the folder itself, in one line."""

    @pytest.fixture
    def folder(self, base_folder: Path, tmp_path: Path) -> Path:
        peft_folder(base_folder, tmp_path / "adapter", lora())
        return tmp_path / "adapter"

    def test_a_pickle(self, folder: Path) -> None:
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
        assert refusal(lambda: adapters.load_merged(folder)) == (
            f"base.model {folder}: adapter_model.bin is a pickle, which can run code when it is loaded; convert it "
            "once where you trust it, with peft's `save_pretrained`, which writes safetensors"
        )

    def test_no_weights(self, folder: Path) -> None:
        (folder / "adapter_model.safetensors").unlink()
        assert "no weights; expected adapter_model.safetensors" in refusal(lambda: adapters.load_merged(folder))

    def test_a_config_that_is_not_json(self, folder: Path) -> None:
        (folder / "adapter_config.json").write_text("{")
        assert "adapter_config.json is not JSON (" in refusal(lambda: adapters.load_merged(folder))

    def test_weights_that_are_cut_off(self, folder: Path) -> None:
        weights = folder / "adapter_model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-1])
        assert refusal(lambda: adapters.load_merged(folder)) == (
            f"base.model {weights}: the file is cut off ({len(whole) - 1:,} of {len(whole):,} bytes), as after a "
            "download that broke off; get it again"
        )
        weights.write_bytes(whole[:300])
        assert refusal(lambda: adapters.load_merged(folder)) == (
            f"base.model {weights}: its header cannot be read as safetensors, as after a download that broke off; "
            "get the file again"
        )

    def test_a_part_that_is_missing(self, folder: Path) -> None:
        weights = load_file(folder / "adapter_model.safetensors")
        weights.pop(next(name for name in weights if "layers.1.mlp.up_proj.lora_B" in name))
        save_file(weights, folder / "adapter_model.safetensors")
        assert "adapter_model.safetensors lacks a part of the adapter (" in refusal(
            lambda: adapters.load_merged(folder)
        )

    def test_the_base_of_another_adapter(self, folder: Path, tmp_path: Path) -> None:
        """One with fewer layers would take what it knows of it, and leave the rest out."""
        models.save(load("llama", num_hidden_layers=1), tmp_path / "small")
        settings = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "../small"}))
        assert "its base ../small has no place for model.layers.1" in refusal(lambda: adapters.load_merged(folder))


def test_reward_model_and_anchor_are_no_adapters(base_folder: Path, tmp_path: Path) -> None:
    peft_folder(base_folder, tmp_path / "adapter", lora())
    for kind, field in (("reward", "reward.model"), ("anchor", "evaluation.anchor")):
        with pytest.raises(ModelError, match=f"^{field} .*is an adapter .*, which base.model alone takes; merge it"):
            models.copy(str(tmp_path / "adapter"), tmp_path / "copy", kind, "main")  # type: ignore[arg-type]
