"""Pairs that nobody scored, and rows that gave no pair: what is judged of them, and what is not and says so."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from alignment.data.preferences import FAULTS
from alignment.errors import ValidationError
from expectations.runner import validate

UNSCORED: dict[str, Any] = {"chosen_score": None, "rejected_score": None, "gap": None}
ON_SCORES = {"finite_scores", "length_correlation"}

Frame = Callable[..., pd.DataFrame]


def not_applied(found: Any) -> dict[str, str]:
    return {check.name: check.not_applied for check in found.checks if check.not_applied}


def test_without_scores_every_other_check_is_applied_and_these_say_that_they_were_not(
    frame: Frame, config: Any
) -> None:
    found = validate(frame(4, dict.fromkeys(range(4), UNSCORED)), config, ())
    assert not_applied(found) == dict.fromkeys(ON_SCORES, "no scores") | {"score_gap": "no gap"}
    assert len(found.accepted) == 4
    assert not found.problem
    assert found.accepted["chosen_score"].isna().all()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"chosen": "Tale 1: a bell \x07"}, "no_control_characters"),
        ({"chosen_tokens": 90, "rejected_tokens": 2}, "length_ratio"),
        ({"chosen_ids": [9, 10, 1]}, "completions_differ"),
        ({"rejected": "Tale 1:  "}, "not_blank"),
        ({"prompt_ids": None}, "complete"),
    ],
)
def test_an_unscored_pair_is_quarantined_for_anything_else(frame: Frame, config: Any, changes: Any, name: str) -> None:
    found = validate(frame(4, dict.fromkeys(range(4), UNSCORED) | {1: UNSCORED | changes}), config, ())
    assert found.quarantined["broken"].tolist() == [[name]]


def test_with_some_scores_they_are_judged_where_they_are(frame: Frame, config: Any) -> None:
    worse = {"chosen_score": 0.1, "rejected_score": 0.5, "gap": -0.4}
    found = validate(frame(4, {0: UNSCORED, 1: UNSCORED, 2: worse}), config, ())
    assert not_applied(found) == {}
    assert found.quarantined["broken"].tolist() == [["score_gap"]]
    assert found.quarantined["pair_id"].tolist() == ["pair-2"]


def test_a_margin_is_a_gap(frame: Frame, config: Any) -> None:
    margins = {row: UNSCORED | {"gap": gap} for row, gap in enumerate([1.0, 0.01, -2.0, None])}
    found = validate(frame(4, margins), config, ())
    assert not_applied(found) == dict.fromkeys(ON_SCORES, "no scores")
    assert found.quarantined["pair_id"].tolist() == ["pair-1", "pair-2"]


def test_the_correlation_is_that_of_scored_texts(frame: Frame, config: Any) -> None:
    """The unscored pair, whose lengths would break any line through the others', has no part in it."""
    scored = {row: {"chosen_tokens": 6, "rejected_tokens": 3} for row in range(3)}
    wide = config.model_copy(update={"max_length_correlation": 1.0, "chosen_longer_max": 1.0})
    found = validate(frame(4, scored | {3: UNSCORED | {"chosen_tokens": 5, "rejected_tokens": 9}}), wide, ())
    assert found.figures["length_correlation"] == pytest.approx(1.0)


def test_a_row_with_a_fault_is_quarantined_under_its_name_alone(frame: Frame, config: Any) -> None:
    nothing = dict.fromkeys(("prompt", "prompt_ids", "chosen_ids", "rejected_ids", "chosen_tokens", "rejected_tokens"))
    pairs = frame(5, {1: nothing | UNSCORED, 3: nothing | UNSCORED, 4: {"chosen_score": 0.0}})
    pairs["fault"] = ["", "empty_chat", "", "empty_chat", ""]
    found = validate(pairs, config, ())
    assert found.quarantined["broken"].tolist() == [["empty_chat"], ["empty_chat"], ["score_gap"]]
    check = found.checks[0]
    assert (check.name, check.scope, check.failed_rows, check.bound) == ("empty_chat", "row", 2, FAULTS["empty_chat"])
    assert [check.failed_rows for check in found.checks if check.name == "complete"] == [0]
    assert found.figures["quarantined_fraction"] == 0.6


def test_a_set_of_faulty_rows_alone_says_what_is_wrong(frame: Frame, config: Any) -> None:
    pairs = frame(2)
    pairs["fault"] = ["null", "prompts_differ"]
    found = validate(pairs, config, ())
    with pytest.raises(ValidationError, match=r"every one of the 2 pairs was quarantined \(most often: null, 1 row"):
        found.require()
