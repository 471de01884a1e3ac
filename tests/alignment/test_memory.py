"""The memory that stages need: counted from shapes, and held beside what models have and what autograd keeps."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from alignment import batching
from alignment.config import DPOConfig, build_config
from alignment.layout import lay_flat
from alignment.logprobs import computing, logprobs
from alignment.memory import FRAGMENTS, Memory, Shape, sampling, training
from alignment.models import Loaded
from alignment.needs import model_of, need, needs, of_machine
from alignment.training.adapter import attach

SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "n_embd": 96,
    "intermediate_size": 256,
    "n_inner": 256,
    "num_attention_heads": 6,
    "n_head": 6,
    "vocab_size": 1_000,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}


def made(kind: str, layers: int, **more: Any) -> Any:
    sizes = SIZES | {"num_hidden_layers": layers, "n_layer": layers} | more
    known = AutoConfig.for_model(kind).to_dict()
    return AutoConfig.for_model(kind, **{name: value for name, value in sizes.items() if name in known or name in more})


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {"num_key_value_heads": 2}),
        ("llama", {"num_key_value_heads": 6, "tie_word_embeddings": True}),
        ("qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
        ("qwen3", {"num_key_value_heads": 2, "head_dim": 32}),
        ("mixtral", {"num_key_value_heads": 2, "num_local_experts": 4}),
        ("gpt2", {}),
        ("gpt_neox", {}),
        ("phi", {}),
    ],
)
def test_a_config_tells_how_many_weights_there_are(kind: str, more: dict[str, Any]) -> None:
    """Norms and biases are left out: 1.5% of a model as narrow as these."""
    config = made(kind, 3, **more)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = Shape.of(config.to_dict())
    assert shape is not None
    assert shape.weights == pytest.approx(sum(weight.numel() for weight in model.parameters()), rel=0.015)


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize(("kind", "more"), [("llama", {"num_key_value_heads": 2}), ("gpt2", {})])
def test_a_layer_keeps_what_autograd_saves_of_it(kind: str, more: dict[str, Any], adapted: bool) -> None:
    """Three layers against one; what the estimate leaves out are the norms' and the attention's sums, one a token."""
    found = []
    for layers in (1, 3):
        model = AutoModelForCausalLM.from_config(made(kind, layers, **more)).train()
        if adapted:
            model = attach(Loaded(model, None), DPOConfig(adapter_rank=4), seed=0).model.train()
        own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        layout = lay_flat([[5, 6, 7], [9, 8, 7]], [[3] * 36, [4] * 36])
        saved: dict[int, int] = {}
        alive: list[Any] = []

        def keep(tensor: Any, own: Any = own, saved: Any = saved, alive: Any = alive) -> Any:
            if tensor.untyped_storage().data_ptr() not in own:
                saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
            return tensor

        with computing(model, is_flat=True):
            logprobs(model, layout)  # which finds out once what its head is
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                logprobs(model, layout)
        found.append(sum(saved.values()) / 4 / layout.ids.shape[1])
    shape = Shape.of(made(kind, 3, **more).to_dict())
    assert shape is not None
    planned = shape.kept(trained=not adapted) + (7 if shape.gated else 4) * 4 * adapted
    assert planned <= (found[1] - found[0]) / 2 <= 1.02 * planned


SHAPE = Shape(weights=1_000, layers=2, width=10, inner=30, queries=10, keys=5, vocabulary=20)
KEPT = 2 * (7 * 10 + 2 * 15 + 4 * 30)  # numbers of a token in both layers


def test_full_training_by_hand() -> None:
    """Weights, AdamW's two moments and gradients in fp32; activations, with the head's gradient, instead of gradients
    where they are more, and beside them where these are accumulated."""
    found = training(SHAPE, 3, predicted=3)
    kept = int(FRAGMENTS * 4 * KEPT * 3) + 4 * 20 * 10
    assert found == Memory(4_000, 8_000, 4_000, kept, logits=4 * 3 * 20)
    assert (found.floor, found.peak) == (16_000, 12_000 + kept + 240)
    assert training(SHAPE, 3, predicted=3, accumulated=True).peak == 16_000 + kept + 240
    assert training(SHAPE, 3, predicted=3, optimizer="adamw_8bit").optimizer == 2_000
    assert training(SHAPE, 3, predicted=3, precision="bf16").weights == 6_000


def test_an_adapter_s_training_by_hand() -> None:
    """Rank 2 on q, o (10 by 10), k, v (10 to 5), and three of the MLP (10 and 30): 760 weights in two layers."""
    found = training(SHAPE, 3, predicted=3, rank=2, load_in="bf16", precision="bf16")
    assert SHAPE.adapter(2) == 2 * 2 * (2 * 20 + 2 * 15 + 3 * 40) == 760
    assert (found.weights, found.optimizer, found.gradients) == (2_000 + 4 * 760, 8 * 760, 4 * 760)
    assert SHAPE.loaded("4bit") == int(0.53 * 800 + 2 * 200)


def test_gradient_checkpointing_keeps_one_layer_and_what_goes_into_each() -> None:
    checkpointed, whole = (training(SHAPE, 3, predicted=0, checkpointing=on).activations for on in (True, False))
    assert checkpointed - 800 == int(FRAGMENTS * 4 * 3 * (KEPT / 2 + 2 * 10))
    assert checkpointed < whole


def test_logits_that_are_computed_again_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batching.KEPT, "cpu", 59)
    assert training(SHAPE, 3, predicted=3).logits == 0
    monkeypatch.setitem(batching.KEPT, "cpu", 60)
    assert training(SHAPE, 3, predicted=3).logits == 240


def test_sampling_keeps_keys_and_values_of_each_token_of_each_row() -> None:
    one, two = (sampling(SHAPE, rows, 8).cache for rows in (1, 2))
    assert one == int(1.1 * 4 * 2 * 2 * 5 * 8)
    assert two == 2 * one


def test_processes_hold_each_their_own_or_a_share_of_what_is_kept_of_weights() -> None:
    """Eight pairs a step, four of them a process; on a CPU, whose memory they share, the two count together."""
    shapes = {"base": SHAPE}
    one, two, shared = (
        need("policy", build_config({"dpo": {"batch_size": 8} | changes}), shapes, "cuda")
        for changes in ({}, {"processes": 2}, {"processes": 2, "sharding": "fsdp"})
    )
    assert one is not None
    assert two is not None
    assert shared is not None
    assert (two.floor, two.logits) == (one.floor, one.logits // 2)
    assert (shared.floor, shared.activations) == (one.floor // 2, two.activations)
    together = need("policy", build_config({"dpo": {"processes": 2}}), shapes, "cpu")
    rounded, again = (
        need(
            "policy",
            build_config(
                {"dpo": {"processes": 2, "sharding": "fsdp", "precision": "bf16", "gradient_checkpointing": each}}
            ),
            shapes,
            "cuda",
        )
        for each in (False, True)
    )
    assert rounded is not None
    assert again is not None
    assert rounded.weights - again.weights == 2 * SHAPE.weights
    assert together == two.of(2)


def test_the_stages_of_a_run_greatest_first() -> None:
    """The reference's own log-probs, and no reward: it has no shape."""
    found = needs(build_config({"dpo": {"batch_size": 64}}), {"base": SHAPE}, "cpu")
    assert next(iter(found)) == "policy"
    assert {"base", "samples", "before", "after"} < set(found)
    assert "scores" not in found
    assert need("texts", build_config({}), {"base": SHAPE}, "cpu") is None
    assert needs(build_config({}), {}, "cpu") == {}


def test_a_base_that_is_given_is_copied_by_the_processor() -> None:
    given = build_config({"base": {"model": "./given"}, "reward": {"model": "./given"}})
    assert need("base", given, {"base": SHAPE}, "cpu") == Memory(4 * 1_000)
    assert need("base", given, {"base": SHAPE}, "cuda") is None


def test_the_reference_is_scored_on_the_base_as_it_is_held() -> None:
    """In bf16, autocast keeps its copies of fp32 weights beside them; 200 of the weights are the embedding."""
    weights = [
        found.weights
        for base, precision in (("fp32", "fp32"), ("fp32", "bf16"), ("bf16", "bf16"), ("4bit", "bf16"))
        if (
            found := need(
                "reference",
                build_config(
                    {"base": {"load_in": base}, "dpo": {"adapter": "lora", "loss": "sigmoid", "precision": precision}}
                ),
                {"base": SHAPE},
                "cuda",
            )
        )
    ]
    assert weights == [4_000, 6_000, 2_000, int(0.53 * 800) + 2 * 200]


def test_an_evaluation_holds_one_model_at_a_time() -> None:
    """The larger of the two, so that a reward model that is larger than the base decides."""
    shapes = {"base": SHAPE, "reward": replace(SHAPE, weights=9_000)}
    half = build_config({"evaluation": {"precision": "bf16"}, "sampling": {"precision": "bf16"}})
    for config, given, weights in ((build_config({}), {"base": SHAPE}, 4_000), (half, {"base": SHAPE}, 2_000)):
        found = need("after", config, given, "cuda")
        assert found is not None
        assert found.weights == weights
    assert need("after", half, shapes, "cuda") == need("scores", half, shapes, "cuda")


@pytest.mark.parametrize(("precision", "weights"), [("fp32", 4 * 9_000), ("bf16", 2 * 9_000)])
def test_of_several_judges_the_one_that_takes_the_most_counts(precision: str, weights: int) -> None:
    parts = [{"name": name, "kind": "classifier", "model": "./given", "precision": precision} for name in ("a", "b")]
    config = build_config({"base": {"model": "./given"}, "reward": {"kind": "sum", "parts": parts}})
    shapes = {"reward.parts.a": SHAPE, "reward.parts.b": replace(SHAPE, weights=9_000)}
    found = need("scores", config, shapes, "cuda")
    assert found is not None
    assert found.weights == weights
    assert model_of("scores", config, shapes, "cuda") == ("reward.parts.b.model", "./given")
    assert of_machine(config, shapes) == {"reward": 4 * 9_000}


def test_what_a_machine_needs_beside_its_gpus() -> None:
    dpo: dict[str, Any] = {"adapter": "lora", "loss": "sigmoid", "precision": "bf16"}
    given: dict[str, Any] = {"base": {"model": "./given", "load_in": "bf16"}, "reward": {"model": "./given"}}
    assert of_machine(build_config(given | {"dpo": dpo}), {"base": SHAPE}) == {"base": 4_000, "policy": 4_000}
    assert of_machine(build_config({"dpo": {"processes": 2, "sharding": "fsdp"}}), {"base": SHAPE}) == {"policy": 8_000}
    assert of_machine(build_config({}), {"base": SHAPE}) == {}


def test_what_is_told_of_it() -> None:
    assert Memory(4_000_000_000, 8_000_000_000, 4_000_000_000, 500_000_000).told == (
        "16.0 GB (weights 4.0 GB, optimizer 8.0 GB, gradients 4.0 GB, activations 500 MB)"
    )
    assert Memory(1_000_000).told == "1 MB (weights 1 MB)"
