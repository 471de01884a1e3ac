"""What is said of pairs whose scores are too close: the quantiles by hand."""

import pytest

from expectations.gaps import explain_gaps


def test_it_says_how_the_gaps_lie_and_which_bound_keeps_half() -> None:
    told = explain_gaps([0.001, 0.002, 0.00456, 0.01, 0.02], 0.05)
    assert "are 0.001 to 0.02, half of them above 0.0046, and validation.min_gap asks for 0.05" in told
    assert told.endswith("a lower validation.min_gap, of which 0.0045 keeps half of the pairs")
    assert "needs more reward.steps" in told


def test_the_bound_that_it_names_does_keep_half() -> None:
    gaps = [0.00123, 0.00999, 0.02]
    bound = float(explain_gaps(gaps, 1.0).partition("of which ")[2].split()[0])
    assert sum(gap >= bound for gap in gaps) * 2 >= len(gaps)


@pytest.mark.parametrize("gaps", [[], [0.05, 0.05], [0.01, 0.06]], ids=str)
def test_it_says_nothing_where_half_of_the_pairs_reach_the_bound_or_none_is_scored(gaps: list[float]) -> None:
    assert explain_gaps(gaps, 0.05) == ""


def test_scores_that_are_all_alike_are_kept_by_no_bound_above_zero() -> None:
    assert explain_gaps([0.0, 0.0], 0.05).endswith("of which 0 keeps half of the pairs")
