"""The split into accepted and quarantined, and the verdict on the set."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from alignment.config import ValidationConfig
from alignment.errors import ValidationError
from expectations.runner import validate

INF = float("inf")
START = "Tale 1:"
TEXT_CHECKS = ["starts_with_prompt", "completions_differ", "not_blank", "no_control_characters", "whole_unicode"]

# what is changed in a sound pair, and the names of all checks that it then breaks
BREAKING = [
    ({"chosen_score": 0.34}, ["score_gap"]),
    ({"chosen_score": 0.1, "rejected_score": 0.9}, ["score_gap"]),
    ({"chosen_score": INF}, ["finite_scores"]),
    ({"chosen_score": INF, "rejected_score": INF}, ["finite_scores", "score_gap"]),
    ({"rejected_score": None}, ["complete", "finite_scores", "score_gap"]),
    ({"chosen_tokens": 1}, ["completion_tokens"]),
    ({"rejected_tokens": 8}, ["completion_tokens"]),
    ({"chosen_tokens": 2, "rejected_tokens": 7}, ["length_ratio"]),
    ({"chosen_tokens": 1, "rejected_tokens": 9}, ["completion_tokens", "length_ratio"]),
    ({"rejected_tokens": None}, ["complete", "length_ratio"]),
    ({"chosen": START + "ab"}, ["text_chars"]),
    ({"rejected": START + " long" * 9}, ["text_chars"]),
    ({"rejected": "Another tale 1"}, ["starts_with_prompt"]),
    ({"chosen": START + " it ends badly"}, ["completions_differ"]),
    ({"chosen_ids": [9, 10, 1]}, ["completions_differ"]),
    ({"rejected": START + " \n\t "}, ["not_blank"]),
    ({"chosen": START + " a bell \x07"}, ["no_control_characters"]),
    ({"chosen": START + " a\n\tb\r c"}, []),
    ({"rejected": START + " cut \ufffd"}, ["whole_unicode"]),
    ({"chosen": START + " cut \ud83d"}, ["whole_unicode"]),
    ({"chosen": None}, ["complete", *TEXT_CHECKS]),
    ({"prompt": None}, ["complete", "starts_with_prompt", "not_blank"]),
    ({"chosen_ids": None}, ["complete", "completions_differ"]),
    ({"prompt_ids": None}, ["complete"]),
    ({"pair_id": None}, ["complete"]),
    ({"rejected_logprob": None}, []),
]


@pytest.fixture
def tight() -> ValidationConfig:
    return ValidationConfig(
        min_tokens=2, max_tokens=7, min_chars=10, max_chars=40, max_length_ratio=3, min_pairs=1, min_distinct_prompts=1
    )


@pytest.mark.parametrize(("changes", "names"), BREAKING)
def test_a_pair_carries_the_names_of_what_it_broke(frame, tight, changes, names):
    pairs = frame(3, {1: changes})
    found = validate(pairs, tight, ())
    assert found.quarantined["broken"].tolist() == ([names] if names else [])
    assert found.accepted["chosen"].tolist() == pairs["chosen"][[True, not names, True]].tolist()
    assert {check.name: check.failed_rows for check in found.checks if check.failed_rows} == dict.fromkeys(names, 1)
    assert {check.name for check in found.checks if check.scope == "row" and not check.passed} == set(names)


def test_every_row_check_has_a_breaking_pair():
    from expectations.suites import ROW_CHECKS

    assert {name for _, names in BREAKING for name in names} == set(ROW_CHECKS)


def test_quarantined_pairs_keep_their_columns_as_they_came(frame, tight):
    pairs = frame(3, {1: {"chosen": START + " cut \ud83d"}})
    before = pairs.copy()
    found = validate(pairs, tight, ())
    assert found.quarantined["chosen"].tolist() == [START + " cut \ud83d"]
    assert list(found.quarantined) == [*pairs, "broken"]
    pd.testing.assert_frame_equal(pairs, before)


def test_token_ids_may_be_arrays_and_the_index_anything(frame, config):
    pairs = frame(4, {2: {"chosen_ids": [9, 10, 2]}})
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        pairs[name] = pairs[name].map(np.array)
    found = validate(pairs.set_index(pd.Index([5, 5, 7, 7])), config, ())
    assert found.quarantined["pair_id"].tolist() == ["pair-2"]


def test_no_failing_row_is_lost_in_a_long_frame(frame, config):
    """Great Expectations keeps 200 failing values at most in its results, but every index."""
    found = validate(frame(700, {row: {"chosen_score": 0.0} for row in range(0, 700, 2)}), config, ())
    assert found.accepted["pair_id"].tolist() == [f"pair-{row}" for row in range(1, 700, 2)]
    assert len(found.quarantined) == 350


SCORES = st.sampled_from([0.0, 0.1, 0.5, 0.52, 0.9, INF, -INF, math.nan])
ENDS = st.sampled_from([" well", " badly", " \n", "", " \x00 end", " cut \ufffd", " long" * 9, None])
ROWS = st.lists(st.tuples(SCORES, SCORES, ENDS, ENDS, st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=25)


@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(ROWS)
def test_the_split_equals_a_mask_of_plain_pandas(frame, tight, rows):
    names = ("chosen_score", "rejected_score", "chosen", "rejected", "chosen_tokens", "rejected_tokens")
    changes = {number: dict(zip(names, row, strict=True)) for number, row in enumerate(rows)}
    for number, change in changes.items():
        for side in ("chosen", "rejected"):
            change[side] = None if change[side] is None else f"Tale {number}:{change[side]}"
    pairs = frame(len(rows), changes)

    scores = pairs[["chosen_score", "rejected_score"]]
    good = (pairs["chosen_score"] - pairs["rejected_score"]).ge(tight.min_gap)
    good &= scores.abs().max(axis=1, skipna=False).lt(INF)
    good |= scores.isna().all(axis=1)
    tokens = pairs[["chosen_tokens", "rejected_tokens"]]
    good &= tokens.min(axis=1).ge(2) & tokens.max(axis=1).le(7) & tokens.max(axis=1).le(3 * tokens.min(axis=1))
    for side in ("chosen", "rejected"):
        text = pairs[side].astype("str").fillna("")
        good &= text.str.len().between(10, 40) & ~text.str.contains("[\x00\ufffd]")
        good &= text.str.split(":").str[1].astype("str").fillna("").str.strip().ne("")
    good &= pairs["chosen"].ne(pairs["rejected"])

    found = validate(pairs, tight, ())
    assert found.accepted["pair_id"].tolist() == pairs["pair_id"][good].tolist()
    assert found.quarantined["pair_id"].tolist() == pairs["pair_id"][~good].tolist()
    assert found.quarantined["broken"].map(len).gt(0).all()
    assert found.figures["accepted_pairs"] + found.figures["quarantined_pairs"] == len(pairs)


SAME = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
LOUD = {"chosen_tokens": 6, "rejected_tokens": 3}

# changes by row of eight sound pairs, fields of the config, and the message
STOPPING = [
    ({}, {"min_pairs": 9}, "accepted pairs 8, must be at least validation.min_pairs = 9"),
    (
        {row: {"chosen_score": 0.3} for row in range(3)} | {3: {"rejected": "x" * 9}},
        {"max_quarantined": 0.25},
        "quarantined fraction 0.5, must be at most validation.max_quarantined = 0.25 "
        "(most often: score_gap, 3 rows, starts_with_prompt, 1 row)",
    ),
    (
        {0: SAME, 1: SAME},
        {"max_duplicates": 0.1},
        "duplicate fraction 0.125, must be at most validation.max_duplicates = 0.1",
    ),
    (
        {0: {"chosen_tokens": 4}, 1: {"rejected_tokens": 4}},
        {"chosen_longer_min": 0.6},
        "chosen longer fraction 0.5, must be at least validation.chosen_longer_min = 0.6 "
        "and at most validation.chosen_longer_max = 0.8",
    ),
    (
        {row: {"chosen_tokens": 4} for row in range(8)},
        {"max_length_correlation": 1.0},
        "chosen longer fraction 1, must be at least validation.chosen_longer_min = 0.2 "
        "and at most validation.chosen_longer_max = 0.8",
    ),
    (
        dict.fromkeys(range(8), LOUD),
        {"chosen_longer_max": 1.0, "max_length_correlation": 0.9},
        "length correlation 1, must be at most validation.max_length_correlation = 0.9 in size",
    ),
    (
        {row: {"chosen_tokens": 3, "rejected_tokens": 6} for row in range(8)},
        {"chosen_longer_min": 0.0, "max_length_correlation": 0.9},
        "length correlation -1, must be at most validation.max_length_correlation = 0.9 in size",
    ),
    (
        {0: {"prompt_id": "held-out"}},
        {},
        "shared prompts 1, must be 0: leave prompts held out for the evaluation out",
    ),
    (
        {row: {"prompt_ids": [1]} for row in range(8)},
        {},
        "distinct prompts 1, must be at least validation.min_distinct_prompts = 2",
    ),
    (
        {0: {"prompt_id": "held-out"}},
        {"min_pairs": 9},
        "accepted pairs 8, must be at least validation.min_pairs = 9; "
        "shared prompts 1, must be 0: leave prompts held out for the evaluation out",
    ),
]


@pytest.mark.parametrize(("changes", "fields", "message"), STOPPING)
def test_a_failed_set_check_stops_with_figure_bound_and_field(frame, config, changes, fields, message):
    found = validate(frame(8, changes), config.model_copy(update=fields), {"held-out"})
    with pytest.raises(ValidationError, match=f"^pairs: {re.escape(message)}$"):
        found.require()
    failed = [check for check in found.checks if check.scope == "set" and not check.passed]
    assert all(check.observed == found.figures[check.name] for check in failed)


def test_figures_at_their_bounds_pass(frame):
    bounds = ValidationConfig(min_pairs=4, min_distinct_prompts=4, max_quarantined=0.2)
    found = validate(frame(5, {0: {"chosen_score": 0.0}}), bounds, ["prompt-9"])
    found.require()
    assert found.problem == ""
    assert all(check.passed for check in found.checks if check.scope == "set")


def test_every_pair_quarantined_is_an_error_that_names_the_checks(frame, config):
    found = validate(frame(4, {row: {"chosen_score": 0.0} for row in range(4)}), config, ())
    assert (len(found.accepted), len(found.quarantined)) == (0, 4)
    with pytest.raises(ValidationError, match=r"every one of the 4 pairs was quarantined \(most often: score_gap, 4 r"):
        found.require()


def test_records_are_frozen_and_plain(frame, config):
    found = validate(frame(2), config, ())
    check = found.checks[0]
    with pytest.raises(ValueError, match="frozen"):
        check.passed = False  # type: ignore[misc] # that it cannot be set is the test
    assert check.model_dump() == {
        "name": "complete",
        "scope": "row",
        "severity": "warning",
        "observed": 0.0,
        "bound": "without nulls",
        "passed": True,
        "failed_rows": 0,
        "not_applied": "",
    }
