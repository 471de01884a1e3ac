"""LoRA: a policy that starts as its reference, trains few weights, and goes on from its checkpoint to the bit."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from alignment.config import DPOConfig
from alignment.errors import ModelError, SelfCheckError
from alignment.models import Loaded
from alignment.training.adapter import attach, targets, trainable
from alignment.training.checkpoints import resume_point
from alignment.training.dpo import _require_own_reference
from tests.alignment.architectures import build
from tests.alignment.training.small import (
    Pair,
    assert_same_weights,
    checkpoints,
    gaps,
    interrupt,
    make_config,
    make_pairs,
    stop,
    train,
)

LORA: dict[str, Any] = {"adapter": "lora", "adapter_rank": 4, "learning_rate": 1e-2}


def lora(model: Any, seed: int = 0, **changes: Any) -> Any:
    """The model with an adapter, as training takes it."""
    return attach(Loaded(model, None), DPOConfig(**(LORA | changes)), seed).model


@pytest.fixture
def attached(tiny_gpt2: Callable[..., Any]) -> Callable[[], Any]:
    """`attached()`: the small policy with an adapter, the same at every call."""
    return lambda: lora(tiny_gpt2(0, width=16))


class TestAttach:
    """The model with an adapter, before training."""

    def test_the_policy_starts_as_its_reference(self, attached: Callable[[], Any], pairs: list[Pair]) -> None:
        assert gaps(attached(), pairs).abs().max() < 1e-5

    def test_the_self_check_takes_it_for_its_reference_until_it_is_trained(
        self, tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any
    ) -> None:
        model = tiny_gpt2(0, vocab_size=len(tiny_tokenizer), width=16)
        pairs = make_pairs(model, 4)
        loaded = attach(Loaded(model, tiny_tokenizer), DPOConfig(**LORA), 0)
        _require_own_reference(loaded, pairs)
        for name, weight in loaded.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(weight, 0.1)
        with pytest.raises(SelfCheckError, match="the pairs' reference"):
            _require_own_reference(loaded, pairs)

    def test_the_first_loss_is_ln_2(self, attached: Callable[[], Any], pairs: list[Pair], tmp_path: Path) -> None:
        outcome = train(attached(), pairs, make_config(**LORA, log_every=1), tmp_path)
        assert outcome.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
        assert outcome.history[-1]["loss"] < 0.6

    def test_only_the_adapter_is_trained(
        self, attached: Callable[[], Any], model: Any, pairs: list[Pair], tmp_path: Path
    ) -> None:
        policy = attached()
        train(policy, pairs, make_config(**LORA), tmp_path)
        with policy.disable_adapter():
            assert gaps(policy, pairs).abs().max() < 1e-5
        assert gaps(policy, pairs).min() > 0.01
        assert_same_weights(policy.unload(), model)

    def test_it_is_drawn_with_the_seed_and_leaves_other_draws_alone(self, tiny_gpt2: Callable[..., Any]) -> None:
        torch.manual_seed(7)
        before = torch.random.get_rng_state()
        one, same, other = (lora(tiny_gpt2(0, width=16), seed=seed).state_dict() for seed in (1, 1, 2))
        assert torch.equal(torch.random.get_rng_state(), before)
        assert all(torch.equal(one[name], same[name]) for name in one)
        drawn = [name for name in one if "lora_A" in name]
        assert drawn
        assert not any(torch.equal(one[name], other[name]) for name in drawn)

    def test_so_many_parameters_are_trained(self) -> None:
        """Rank 4 on q, o (32 x 32), k, v (32 x 16), gate, up (32 x 48) and down (48 x 32) of two layers."""
        model = build("llama")
        whole = sum(weight.numel() for weight in model.parameters())
        expected = 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
        assert trainable(lora(model)) == {"trainable_parameters": expected, "all_parameters": whole + expected}

    def test_what_is_added_is_scaled_by_alpha_over_the_rank(self, attached: Callable[[], Any]) -> None:
        layer = attached().base_model.model.transformer.h[0].attn.c_attn
        assert layer.scaling == {"default": 32 / 4}


class TestTargets:
    """Which layers get an adapter."""

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("gpt2", "c_attn c_fc c_proj"),
            ("llama", "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj"),
            ("mixtral", "k_proj o_proj q_proj v_proj"),  # experts are no layers, but slices of one tensor
            ("mamba", "in_proj x_proj"),  # its kernels take the weights of the others, and never call them
            ("lfm2", "in_proj k_proj out_proj q_proj v_proj w1 w2 w3"),
        ],
    )
    def test_all_linear_layers_but_the_output_head(self, kind: str, expected: str) -> None:
        found = targets(Loaded(build(kind), None), ())
        assert " ".join(sorted({name.rpartition(".")[2] for name in found})) == expected

    def test_layers_that_share_their_weights_are_left_out(self) -> None:
        """Merged into one, each would change the other."""
        model = build("llama")
        model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
        assert not [name for name in targets(Loaded(model, None), ()) if "up_proj" in name]

    def test_named_ones_alone(self) -> None:
        model = build("llama")
        assert targets(Loaded(model, None), ("layers.1.self_attn.q_proj", "o_proj")) == [
            "model.layers.0.self_attn.o_proj",
            "model.layers.1.self_attn.q_proj",
            "model.layers.1.self_attn.o_proj",
        ]

    def test_a_name_that_is_none_of_the_model_s_is_refused_with_those_that_are(self, model: Any) -> None:
        with pytest.raises(ModelError) as raised:
            targets(Loaded(model, None, "base.model x"), ("c_attn", "q_proj"))
        assert str(raised.value) == (
            "base.model x: dpo.adapter_targets names 'q_proj', and has no layer of that name that a LoRA adapter could "
            "stand on; name some of c_attn, c_fc, c_proj, lm_head, wpe, wte"
        )

    def test_a_model_without_linear_layers_is_refused(self) -> None:
        class Bare(torch.nn.Module):
            def get_output_embeddings(self) -> None:
                return None

        with pytest.raises(ModelError, match=r"^the model: has no linear layer .*; set dpo\.adapter to none$"):
            targets(Loaded(Bare(), None), ())

    def test_what_the_library_raises_is_one_line(self, model: Any) -> None:
        """Of weights that are no matrix, for instance."""
        model.transformer.h[0].attn.c_attn.weight = torch.nn.Parameter(torch.zeros(3))
        with pytest.raises(ModelError, match=r"^the model: cannot be used for training a LoRA adapter \("):
            lora(model)


class TestResuming:
    """A run that was killed ends as if it had not been."""

    @pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
    def test_ends_with_the_weights_and_history_of_an_undisturbed_run(
        self, attached: Callable[[], Any], pairs: list[Pair], tmp_path: Path, optimizer: str
    ) -> None:
        """To the bit."""
        config = make_config(**LORA, optimizer=optimizer, weight_decay=0.01)
        model, resumed_model = attached(), attached()
        undisturbed = train(model, pairs, config, tmp_path / "undisturbed")
        interrupt(attached(), pairs, config, tmp_path / "work", 7)
        steps: list[int] = []
        resumed = train(resumed_model, pairs, config, tmp_path / "work", progress=lambda done, _: steps.append(done))
        assert steps[0] == 5
        assert resumed == undisturbed
        assert_same_weights(resumed_model, model)

    def test_asked_to_stop_it_goes_on_as_if_undisturbed(
        self, attached: Callable[[], Any], pairs: list[Pair], tmp_path: Path
    ) -> None:
        config = make_config(**LORA)
        model, resumed_model = attached(), attached()
        undisturbed = train(model, pairs, config, tmp_path / "undisturbed")
        stop(attached(), pairs, config, tmp_path / "work", 5)
        assert [path.name for path in checkpoints(tmp_path / "work")] == ["checkpoint-6"]
        assert train(resumed_model, pairs, config, tmp_path / "work") == undisturbed
        assert_same_weights(resumed_model, model)

    def test_a_checkpoint_holds_the_adapter_alone(
        self, attached: Callable[[], Any], pairs: list[Pair], tmp_path: Path
    ) -> None:
        interrupt(attached(), pairs, make_config(**LORA), tmp_path, 5)
        (checkpoint,) = checkpoints(tmp_path)
        weights = {file.name for file in checkpoint.iterdir() if file.suffix == ".safetensors"}
        assert weights == {"adapter_model.safetensors", "optimizer.safetensors", "random.safetensors"}
        assert {file.suffix for file in checkpoint.iterdir()} == {".safetensors", ".json"}
        assert all(".lora_" in name for name in load_file(checkpoint / "adapter_model.safetensors"))

    @pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.safetensors", "trainer_state.json"])
    @pytest.mark.parametrize("length", [None, 0, 200], ids=["missing", "empty", "cut off"])
    def test_a_torn_checkpoint_is_deleted_for_the_whole_one_before_it(
        self, attached: Callable[[], Any], pairs: list[Pair], tmp_path: Path, file: str, length: int | None
    ) -> None:
        interrupt(attached(), pairs, make_config(**LORA), tmp_path, 5)
        whole, torn = tmp_path / "checkpoint-4", tmp_path / "checkpoint-8"
        shutil.copytree(whole, torn)
        assert resume_point(tmp_path) == str(torn)
        content = (torn / file).read_bytes()
        (torn / file).unlink()
        if length is not None:
            (torn / file).write_bytes(content[:length])
        assert resume_point(tmp_path) == str(whole)
        assert checkpoints(tmp_path) == [whole]


def test_state_space_models_resume_too(tmp_path: Path) -> None:
    def policy() -> Any:
        return lora(build("mamba"))

    pairs = make_pairs(build("mamba"), 6)
    config = make_config(**LORA, steps=6, checkpoint_every=2)
    model, resumed_model = policy(), policy()
    undisturbed = train(model, pairs, config, tmp_path / "undisturbed")
    interrupt(policy(), pairs, config, tmp_path / "work", 3)
    assert train(resumed_model, pairs, config, tmp_path / "work") == undisturbed
    assert_same_weights(resumed_model, model)
