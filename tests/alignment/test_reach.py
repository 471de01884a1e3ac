"""What a configuration asks for and can never get: the counts by hand."""

from typing import Any

import pytest

from alignment.config import build_config
from alignment.reach import pairs_of_a_prompt, unreachable


def told(values: dict[str, Any]) -> dict[tuple[str, ...], str]:
    return {fault.fields: fault.message for fault in unreachable(build_config(values))}


def test_the_defaults_are_within_reach() -> None:
    assert told({}) == {}


@pytest.mark.parametrize(
    ("strategy", "pairs"),
    [
        ("best_vs_worst", 1),
        ("best_vs_random", 1),
        ("best_half_vs_worst_half", 2),
        ("gap_weighted", 2),
        ("best_vs_rest", 3),
        ("all_pairs", 6),
    ],
)
def test_the_pairs_of_four_samples(strategy: str, pairs: int) -> None:
    assert pairs_of_a_prompt(build_config({"pairs": {"strategy": strategy}})) == pairs


@pytest.mark.parametrize(("count", "least"), [(63, 64), (64, 64)])
def test_prompts_that_give_too_few_pairs(count: int, least: int) -> None:
    found = told({"prompts": {"count": count}, "validation": {"min_pairs": least}})
    assert (("prompts.count", "validation.min_pairs") in found) == (count < least)


def test_more_pairs_of_a_prompt_need_fewer_prompts() -> None:
    """All pairs of 4 samples are 6: 11 prompts give 66."""
    bounds = {"min_pairs": 66, "min_distinct_prompts": 2}
    assert told({"prompts": {"count": 11}, "pairs": {"strategy": "all_pairs"}, "validation": bounds}) == {}
    found = told({"prompts": {"count": 10}, "pairs": {"strategy": "all_pairs"}, "validation": bounds})
    assert found[("prompts.count", "validation.min_pairs")].endswith(
        "raise prompts.count to 11 or more, or lower validation.min_pairs to 60 or less"
    )


def test_eight_prompts_are_too_few_in_both_ways() -> None:
    assert list(told({"prompts": {"count": 8}})) == [
        ("prompts.count", "validation.min_distinct_prompts"),
        ("prompts.count", "validation.min_pairs"),
    ]


def test_pairs_that_are_given_are_not_counted_by_prompts() -> None:
    values = {
        "data": {"path": "mine.jsonl", "label_column": ""},
        "base": {"model": "some/model"},
        "reward": {"kind": "none"},
        "prompts": {"source": "pairs", "count": 40},
        "pairs": {"source": "given"},
    }
    assert told(values) == {}


def test_a_limit_below_the_bound() -> None:
    assert list(told({"pairs": {"max_pairs": 63}})) == [("pairs.max_pairs", "validation.min_pairs")]


@pytest.mark.parametrize(("tokens", "refused"), [(56, False), (57, True)])
def test_completions_that_are_too_short(tokens: int, refused: bool) -> None:
    """64 tokens, of which the prompt has 8."""
    values = {"validation": {"min_tokens": tokens}}
    assert list(told(values)) == ([("sampling.total_tokens", "validation.min_tokens")] if refused else [])
    shorter = values | {"sampling": {"new_tokens_min": 5, "new_tokens_max": 5}}
    assert list(told(shorter)) == [("sampling.new_tokens_max", "validation.min_tokens")]


@pytest.mark.parametrize(("rows", "refused"), [(20, True), (30, False)])
def test_rows_that_hold_out_too_few_prompts(rows: int, refused: bool) -> None:
    """A quarter of 20 rows is 5, and 5 standard deviations more are 14.7; of 30 it is 7.5 and 19.4; 16 are needed."""
    assert (("data.rows", "prompts.eval_fraction", "prompts.min_eval") in told({"data": {"rows": rows}})) == refused
