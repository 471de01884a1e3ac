"""What makes a stage take less memory: the fields that help by the estimate, and what is left with all of them."""

from dataclasses import replace
from typing import Any

import pytest

from alignment.config import build_config
from alignment.memory import Shape, gigabytes
from alignment.needs import need
from alignment.savings import advice, saved

EIGHT_BILLION = Shape.of(
    {
        "model_type": "llama",
        "hidden_size": 4_096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": False,
    }
)
SHAPES = {"base": EIGHT_BILLION} if EIGHT_BILLION else {}
GIVEN: dict[str, Any] = {"base": {"model": "./given"}, "reward": {"model": "./given"}}
LORA: dict[str, Any] = {"adapter": "lora", "loss": "sigmoid"}
LONG: dict[str, Any] = {"total_tokens": 2_048}


def told(stage: str, changes: dict[str, Any], kind: str = "cuda", **there: Any) -> str:
    return advice(stage, build_config(GIVEN | changes), SHAPES, kind, **there)


@pytest.mark.parametrize(
    ("stage", "changes", "fields"),
    [
        # weights, gradients and optimiser are nearly all of it: fewer pairs would save nothing
        ("policy", {"sampling": {"total_tokens": 64}}, ["dpo.adapter to lora", "base.load_in to 4bit"]),
        (
            "policy",
            {"sampling": LONG, "dpo": LORA},
            ["dpo.batch_size to 4 and dpo.accumulation to 2", "dpo.gradient_checkpointing", "base.load_in to 4bit"],
        ),
        (
            "policy",
            {"sampling": LONG, "dpo": LORA | {"batch_size": 6, "global_batch": 24, "gradient_checkpointing": True}},
            ["dpo.batch_size to 3", "base.load_in to 4bit and dpo.precision to bf16", "sampling.total_tokens"],
        ),
        ("samples", {"sampling": LONG}, ["sampling.precision to bf16", "base.model to a smaller model"]),
        ("after", {"sampling": {"precision": "bf16"}}, ["evaluation.precision to bf16", "base.model"]),
        ("reference", {"dpo": LORA}, ["base.load_in to 4bit and dpo.precision to bf16", "base.model"]),
        ("base", {"base": {"model": "train"}}, ["base.width to less than 128"]),
    ],
)
def test_fields_that_save_little_are_not_named(stage: str, changes: dict[str, Any], fields: list[str]) -> None:
    found = told(stage, changes)
    places = [found.index(field) for field in fields]
    assert places == sorted(places)
    assert ("dpo.batch_size" in found) == ("dpo.batch_size" in " ".join(fields))


@pytest.mark.parametrize("stage", ["policy", "reference", "samples", "before", "after", "ranking", "drift", "scores"])
@pytest.mark.parametrize("dpo", [{}, {"processes": 4, "sharding": "fsdp"}, LORA, {"batch_size": 1}], ids=str)
@pytest.mark.parametrize("cards", [1, 4])
def test_what_is_advised_is_a_configuration(stage: str, dpo: dict[str, Any], cards: int) -> None:
    shapes = SHAPES | {"anchor": SHAPES["base"], "reward": SHAPES["base"]}
    given = GIVEN | {"dpo": {"loss": "sigmoid"} | dpo, "sampling": LONG, "evaluation": {"anchor": "./given"}}
    found = saved(stage, build_config(given), shapes, "cuda", size=24 * 10**9, cards=cards)
    assert build_config(found.config.model_dump()) == found.config


def test_what_is_left_is_what_a_run_with_all_of_them_needs() -> None:
    changed = LORA | {"batch_size": 4, "accumulation": 2, "gradient_checkpointing": True, "precision": "bf16"}
    then = need(
        "policy",
        build_config(GIVEN | {"base": {"model": "./given", "load_in": "4bit"}, "sampling": LONG, "dpo": changed}),
        SHAPES,
        "cuda",
    )
    assert then is not None
    found = told("policy", {"sampling": LONG, "dpo": LORA}, size=20 * 10**9)
    assert found.endswith(f"(about {gigabytes(then.peak)} with all of them)")


def test_where_that_is_too_much_still_it_is_said() -> None:
    assert told("policy", {"sampling": LONG, "dpo": LORA}, size=10**9).endswith("; that is still too much)")


def test_on_several_cards_a_full_training_is_shared_first() -> None:
    found = told("policy", {}, cards=4)
    assert found.index("dpo.processes to 4 and dpo.sharding to fsdp") < found.index(" (about")
    assert "fsdp" not in told("policy", {"dpo": LORA}, cards=4)


def test_where_sharing_does_not_suffice_what_fits_is_named() -> None:
    """On cards that have no room for a fourth of 16 bytes a weight, an adapter over 4 bits has."""
    for dpo in ({}, {"processes": 4, "sharding": "fsdp"}):
        found = told("policy", {"dpo": dpo}, cards=4, size=24 * 10**9)
        assert "dpo.adapter to lora" in found
        assert "base.load_in to 4bit" in found
        assert ("dpo.sharding to none" in found) == bool(dpo)
        assert "fsdp" not in found
        assert "too much" not in found


def test_where_the_reward_model_is_the_largest_it_is_what_is_named() -> None:
    """The base of an eighth of it has room; what it takes in sampling changes nothing."""
    assert EIGHT_BILLION is not None
    shapes = {"base": replace(EIGHT_BILLION, weights=10**9), "reward": EIGHT_BILLION}
    found = advice("after", build_config(GIVEN), shapes, "cuda", size=24 * 10**9)
    assert found == "set reward.precision to bf16 (about 16.1 GB with that)"
    half = GIVEN | {"reward": {"model": "./given", "precision": "bf16"}}
    assert advice("after", build_config(half), shapes, "cuda", size=10**10) == "set reward.model to a smaller model"


def test_it_ends_with_what_fits() -> None:
    """Checkpointing changes no result but by rounding, and 4 bits do: they are not named where there is room."""
    found = told("policy", {"sampling": LONG, "dpo": LORA}, size=80 * 10**9)
    assert found.endswith("then dpo.gradient_checkpointing to true (about 50.8 GB with both)")


def test_of_several_judges_the_largest_is_named() -> None:
    assert EIGHT_BILLION is not None
    parts = [{"name": name, "kind": "classifier", "model": "./given"} for name in ("small", "large")]
    shapes = SHAPES | {"reward.parts.small": replace(EIGHT_BILLION, weights=10**6), "reward.parts.large": EIGHT_BILLION}
    config = build_config({"base": {"model": "./given"}, "reward": {"kind": "sum", "parts": parts}})
    found = advice("scores", config, shapes, "cuda", size=24 * 10**9)
    assert found.startswith("set reward.parts.large.precision to bf16, or reward.parts.large.model to a smaller model")


def test_on_a_processor_nothing_is_rounded_in_training() -> None:
    assert "load_in" not in told("policy", {"dpo": LORA, "sampling": LONG}, "cpu")


@pytest.mark.parametrize(
    ("stage", "changes", "expected"),
    [
        (
            "policy",
            {},
            "dpo.batch_size to 4 and dpo.accumulation to 2, then dpo.gradient_checkpointing to true, then dpo.a",
        ),
        (
            "scores",
            {},
            "reward.batch_tokens to 2,048, then reward.precision to bf16, then sampling.total_tokens to 32",
        ),
        (
            "reward",
            {"reward": {"model": "train"}},
            "reward.batch_size to 16, then reward.context to 32, or reward.width to less",
        ),
        ("anchor", {}, "evaluation.anchor to a smaller model"),
        ("base", {}, "base.model to a smaller model"),
    ],
)
def test_of_a_model_whose_shape_nobody_knows_it_is_the_first_that_can_help(
    stage: str, changes: dict[str, Any], expected: str
) -> None:
    config = build_config(({"base": {"model": "./given"}} if "reward" in changes else GIVEN) | changes)
    found = advice(stage, config, {}, "cuda")
    assert found.startswith(f"set {expected}")
    assert "about" not in found
