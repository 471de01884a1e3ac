"""Every fault of a configuration at once, each with the fields that it is about."""

from typing import Any

import pytest

from alignment.config import AlignConfig, build_config, examine
from alignment.errors import ConfigError


def fields(values: dict[str, Any]) -> list[tuple[str, ...]]:
    return [fault.fields for fault in examine(values)[1]]


def test_a_sound_configuration_has_none() -> None:
    assert examine({"dpo": {"beta": 0.25}}) == (AlignConfig.model_validate({"dpo": {"beta": 0.25}}), [])


def test_every_kind_of_fault_is_found_in_one_go() -> None:
    """Out of bounds, unknown, a choice that is none, two within a group, two between groups: pydantic stops at each."""
    values = {
        "seed": -1,
        "dpo": {"beta": 99, "betta": 1},
        "prompts": {"tokens_min": 9, "tokens_max": 8},
        "sampling": {"total_tokens": 128},
        "reward": {"kind": "function"},
        "pairs": {"source": "given"},
    }
    assert fields(values) == [
        ("seed",),
        ("reward.function",),
        ("prompts.tokens_min", "prompts.tokens_max"),
        ("dpo.beta",),
        ("dpo.betta",),
        ("sampling.total_tokens", "base.context"),
        ("pairs.source", "prompts.source"),
    ]


def test_what_the_default_of_a_faulty_field_contradicts_is_no_fault() -> None:
    """`tokens_max` at its default would be 8, and 9 exceeds it; but nobody asked for 8."""
    assert fields({"prompts": {"tokens_min": 9, "tokens_max": -1}}) == [("prompts.tokens_max",)]


@pytest.mark.parametrize("part", [{"kind": "classifier"}, {"name": "a", "weight": "much"}, 3], ids=str)
def test_a_list_that_is_left_out_for_one_element_is_not_called_empty(part: Any) -> None:
    """A sum needs parts, and these are there: only the first is at fault."""
    ((field,),) = fields({"reward": {"kind": "sum", "parts": [part, {"name": "b"}]}})
    assert field.startswith("reward.parts.0")
    assert fields({"reward": {"kind": "sum"}}) == [("reward.parts", "reward.kind")]


def test_the_configuration_keeps_what_is_sound() -> None:
    config, faults = examine({"dpo": {"beta": 99, "steps": 7}, "seed": 3})
    assert len(faults) == 1
    assert (config.dpo.beta, config.dpo.steps, config.seed) == (0.5, 7, 3)


@pytest.mark.parametrize("values", [{"dpo": 3}, {1: 2}, {"reward": {"parts": [{"name": "?"}]}}], ids=str)
def test_it_comes_to_an_end_whatever_is_given(values: dict[Any, Any]) -> None:
    config, faults = examine(values)
    assert config == AlignConfig()
    assert faults


def test_an_error_tells_of_each_fault_and_carries_them() -> None:
    with pytest.raises(ConfigError) as raised:
        build_config({"dpo": {"beta": 0}, "seed": -1}, source="mine.yaml")
    assert str(raised.value) == (
        "mine.yaml: seed = -1: input should be greater than or equal to 0; dpo.beta = 0: input should be greater than 0"
    )
    assert [fault.fields for fault in raised.value.faults] == [("seed",), ("dpo.beta",)]


def test_what_comes_from_an_override_is_not_said_of_the_file() -> None:
    """Also a contradiction between a value of the file, which is sound by itself, and one that was given beside it."""
    file = {"prompts": {"tokens_max": 50}, "seed": -1}
    with pytest.raises(ConfigError) as raised:
        build_config(file, source="mine.yaml", overrides={"sampling": {"total_tokens": 20}})
    first, rest = str(raised.value).split("; ", 1)
    assert first.startswith("sampling.total_tokens = 20 leaves no room after prompts of 50 tokens: raise it")
    assert rest == "mine.yaml: seed = -1: input should be greater than or equal to 0"
