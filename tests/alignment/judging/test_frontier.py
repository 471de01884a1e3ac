"""The frontier as data: who is on it, what is read off it, and what becomes of a point on its way to a file."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from alignment.judging.frontier import (
    CurvePoint,
    FrontierPoint,
    Reference,
    agree,
    allowed_kl,
    ceiling_at,
    drop_after_peak,
    fraction_of_ceiling,
    largest_shown,
    pareto,
    reward_at,
    trajectories,
)
from alignment.judging.frontier_table import drop_rows, name_of, reward_rows, step_of

REFERENCE = Reference(reward=1.0, reward_se=0.1, entropy=5.0, distinct_2=0.5, tokens=20.0, prompts=64, samples=128)


def point(kl: float, reward: float, step: int = 10, **changes: Any) -> FrontierPoint:
    found = FrontierPoint(
        loss="hinge",
        divergence="reverse_kl",
        beta=0.5,
        learning_rate=3e-4,
        seed=0,
        step=step,
        reward=reward,
        reward_se=0.05,
        kl=kl,
        kl_se=0.1,
        kl_sampled=kl,
        kl_sampled_se=0.1,
        entropy=5.1,
        distinct_2=0.5,
        perplexity_ratio=1.05,
        kl_per_token=kl / 20,
        passed=True,
    )
    return replace(found, **changes)


def curve(kl: float, reward: float, trusted: bool = True) -> CurvePoint:
    return CurvePoint(1.0, kl, 0.0, reward, 0.0, 10.0, trusted)


def test_what_another_point_beats_in_both_is_not_on_the_line() -> None:
    good, far, beaten = point(1, 2.0), point(3, 2.5), point(2, 1.9)
    assert pareto([far, beaten, good]) == [good, far]


def test_of_equal_rewards_the_nearer_one_is_on_the_line_and_of_equal_kls_the_better_one() -> None:
    assert pareto([point(2, 2.0), point(1, 2.0), point(1, 1.5)]) == [point(1, 2.0)]


@pytest.mark.parametrize("place", [(math.nan, 2.0), (1.0, math.nan), (1.0, math.inf)])
def test_a_point_without_a_place_is_on_no_line(place: tuple[float, float]) -> None:
    assert pareto([point(*place), point(3, 1.0)]) == [point(3, 1.0)]


def test_the_best_within_a_kl_may_lie_well_within_it() -> None:
    one, two = point(0.9, 1.5), point(2.5, 1.2)
    assert reward_at([two, one], (0.5, 1, 3)) == {0.5: None, 1: one, 3: one}
    assert reward_at([point(3, 2.0)], (3,)) == {3: point(3, 2.0)}


def test_what_a_training_lost_again_counts_from_its_highest_step() -> None:
    way = [point(5, 1.4, step=30), point(1, 1.2, step=10), point(3, 2.0, step=20)]
    peak, last, drop = drop_after_peak(way)
    assert (peak.step, last.step) == (20, 30)
    assert drop == pytest.approx(0.6)
    assert drop_after_peak(way[1:]).drop == 0


def test_a_drop_is_of_one_training() -> None:
    with pytest.raises(ValueError, match="several trainings"):
        drop_after_peak([point(1, 1.0), point(1, 1.0, beta=0.1)])
    with pytest.raises(ValueError, match="no point with a finite reward"):
        drop_after_peak([point(1, math.nan)])


def test_trainings_are_in_the_order_of_their_steps() -> None:
    way = [point(2, 1.0, step=20), point(1, 1.0, step=10)]
    other = point(1, 1.0, seed=1)
    assert trajectories([way[0], other, way[1]]) == [(way[1], way[0]), (other,)]


def test_between_two_points_the_ceiling_is_linear_in_the_root_of_the_kl() -> None:
    """A normal reward with SD 2: 1 + 2 sqrt(2 KL), known at a KL of 2 (5) and of 8 (9); at 4.5 it is 1 + 2 * 3 = 7."""
    known = [curve(2, 5.0), curve(8, 9.0)]
    assert ceiling_at(known, REFERENCE, 4.5) == (pytest.approx(7.0), True)
    assert ceiling_at(known, REFERENCE, 0.5) == (pytest.approx(3.0), True)
    assert ceiling_at(known, REFERENCE, 0) == (1.0, True)


def test_a_ceiling_ends_where_its_samples_do() -> None:
    known = [curve(2, 5.0), curve(8, 9.0, trusted=False)]
    assert ceiling_at(known, REFERENCE, 2) == (5.0, True)
    assert ceiling_at(known, REFERENCE, 5)[1] is False
    assert ceiling_at(known, REFERENCE, 8.1) == (None, False)
    assert ceiling_at([], REFERENCE, 1) == (None, False)


def test_the_fraction_is_of_the_gain_that_the_whole_limit_allows() -> None:
    """Best within a KL of 3 is 2.5, at its own KL of 2; the ceiling at 3 is 4: 1.5 of 3 gained."""
    share = fraction_of_ceiling([point(2, 2.5), point(4, 9.0)], [curve(2, 3.0), curve(3, 4.0)], REFERENCE)
    assert share.point == point(2, 2.5)
    assert (share.ceiling, share.fraction, share.trusted) == (4.0, 0.5, True)


def test_without_a_point_or_a_ceiling_there_is_no_fraction() -> None:
    known = [curve(3, 4.0)]
    assert fraction_of_ceiling([point(4, 2.0)], known, REFERENCE).fraction is None
    assert fraction_of_ceiling([point(2, 2.0)], known, REFERENCE, limit=5.0).ceiling is None
    assert fraction_of_ceiling([point(2, 2.0)], [curve(3, 1.0)], REFERENCE).fraction is None


def test_two_kls_agree_within_their_errors() -> None:
    """The errors 0.3 and 0.4 make 0.5: a difference of 0.8 is 1.6 standard errors."""
    found = agree([point(3, 1.0, kl_se=0.3, kl_sampled=3.8, kl_sampled_se=0.4)])
    assert found.points == 1
    assert found.largest == pytest.approx(1.6, rel=1e-4)
    assert found.holds


def test_one_of_many_may_be_further_off_by_chance() -> None:
    """The largest of 100 normal deviates exceeds 3.9 once in 100 times, that of one 2.58."""
    odd = point(3, 1.0, kl_sampled=3 + 3.5 * math.hypot(0.1, 0.1))
    assert not agree([odd]).holds
    assert agree([odd, *[point(1, 1.0)] * 99]).holds
    assert agree([odd]).bound == pytest.approx(2.576, abs=1e-3)


def test_a_kl_that_is_the_same_but_for_rounding_agrees() -> None:
    start = point(0, 1.0, kl_se=0.0, kl_sampled=1e-5, kl_sampled_se=0.0)
    assert agree([start, point(math.inf, 1.0)]).holds
    assert agree([point(math.nan, 1.0)]).points == 0


@pytest.mark.parametrize(
    "found",
    [point(1, 2.0, passed=False, refused_by=("kl_per_token",)), REFERENCE, curve(1, 2.0)],
    ids=["point", "reference", "curve"],
)
def test_a_row_is_read_again(found: Any) -> None:
    assert type(found).of(json.loads(json.dumps(found.row(), allow_nan=False))) == found


def test_what_is_not_finite_is_nothing_in_a_row() -> None:
    row = point(math.inf, math.nan).row()
    assert (row["kl"], row["reward"]) == (None, None)
    assert math.isnan(FrontierPoint.of(row).reward)
    with pytest.raises(TypeError, match="unknown"):
        Reference.of(REFERENCE.row() | {"unknown": 1})


def test_the_gate_on_a_token_is_one_on_a_completion_of_mean_length() -> None:
    assert allowed_kl(REFERENCE, 0.2) == pytest.approx(4.0)


def test_what_lies_far_out_does_not_crowd_the_others() -> None:
    assert largest_shown([1, 4], at_least=3) == 4
    assert largest_shown([1, 2], at_least=3) == 3
    assert largest_shown([1, 120], at_least=3) == 15
    assert largest_shown([1, 120], at_least=20) == 40


# Tables


def test_the_table_says_what_stands_within_each_kl() -> None:
    points = [point(0.8, 2.0), point(2.5, 2.5, step=20, passed=False, refused_by=("kl_per_token",))]
    known = [curve(1, 3.0), curve(5, 5.0, trusted=False)]
    best = [CurvePoint(2, 0.19, 0, 1.8, 0.1, 32, True), CurvePoint(64, 3.17, 0, 3.5, 0.1, 1, True)]
    near, middle, far = reward_rows(points, known, best, REFERENCE, (1, 2.5, 10))
    assert near == {
        "KL at most": "1",
        "best reward": "+2.00 ± 0.05",
        "of": "hinge, β 0.5, step 10",
        "its KL": "0.80",
        "gates": "passed",
        "best of n": "+1.80 (n = 2)",
        "ceiling": "+3.00",
        "of the ceiling": "50.0%",
    }
    assert middle["gates"] == "refused by kl per token"
    assert middle["ceiling"].startswith("~+")
    assert (far["best of n"], far["ceiling"], far["of the ceiling"]) == ("+3.50 (n = 64)", "–", "–")


def test_a_table_without_points_says_what_is_possible() -> None:
    (row,) = reward_rows([], [curve(1, 3.0)], [], REFERENCE, (1,))
    assert (row["best reward"], row["ceiling"], row["of the ceiling"]) == ("–", "+3.00", "–")


def test_a_divergence_is_named_where_there_are_several() -> None:
    one, two = point(1, 2.0), point(1, 2.0, divergence="forward_kl")
    assert name_of(one, [one]) == "hinge, β 0.5"
    assert name_of(two, [one, two]) == "hinge, forward kl, β 0.5"


def test_a_policy_is_told_from_those_of_another_learning_rate_and_seed() -> None:
    one, two = point(1, 2.0), point(1, 2.5, seed=3, learning_rate=1e-4)
    assert step_of(one, [one]) == "hinge, β 0.5, step 10"
    assert step_of(two, [one, two]) == "hinge, β 0.5, lr 0.0001, seed 3, step 10"
    (row,) = reward_rows([one, two], [], [], REFERENCE, (1,))
    assert row["of"] == "hinge, β 0.5, lr 0.0001, seed 3, step 10"


def test_each_training_has_its_highest_and_its_last_reward() -> None:
    (row,) = drop_rows([point(1, 2.0), point(4, 1.5, step=20), point(1, 1.0, seed=3)])
    assert (row["highest reward"], row["at step"], row["fell by"], row["last KL"]) == (
        "+2.00 ± 0.05",
        "10",
        "0.50",
        "4.00",
    )
