"""The geometry of a page's charts: places by hand, round ticks, holes, and counts that sum."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from alignment.judging.charts import (
    BOTTOM,
    HEIGHT,
    LARGEST,
    LEFT,
    MAX_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    counted,
    histogram,
    line_chart,
    nice_ticks,
    scale,
)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 150, [0, 50, 100, 150]),
        (-0.06, 1.06, [0, 0.5, 1]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (3, 3, [3]),
        (0, 4e-5, [0, 1e-5, 2e-5, 3e-5, 4e-5]),
    ],
)
def test_ticks_are_round_and_within(low: float, high: float, ticks: Sequence[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_the_first_step_is_at_the_left_and_the_highest_value_below_the_top() -> None:
    chart = line_chart("Loss", "nats", {"loss": ("aligned", [(10, 2.0), (20, 1.0), (30, 1.5)])})
    assert chart is not None
    (line,) = chart.lines
    places = [tuple(map(float, point.split(","))) for point in line.pieces[0].split()]
    assert [x for x, _ in places] == [LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT]
    assert places[0][1] == min(y for _, y in places) > TOP
    assert places[1][1] == max(y for _, y in places) < HEIGHT - BOTTOM
    assert chart.said == "Loss: loss 2 at step 10, 1.5 at step 30"


def test_what_is_not_finite_leaves_a_hole_and_what_stands_alone_is_a_dot() -> None:
    points = [(1, 1.0), (2, 2.0), (3, math.nan), (4, 3.0), (5, math.inf), (6, 1.0), (7, 1.0)]
    chart = line_chart("Loss", "", {"loss": ("aligned", points)})
    assert chart is not None
    assert [len(piece.split()) for piece in chart.lines[0].pieces] == [2, 2]
    assert len(chart.lines[0].dots) == 1
    assert [step for step, _ in chart.lines[0].values] == [1, 2, 4, 6, 7]


def test_without_a_finite_value_there_is_no_chart() -> None:
    assert line_chart("Loss", "", {"loss": ("aligned", [(1, math.nan)])}) is None
    assert line_chart("Loss", "", {"loss": ("aligned", [])}) is None
    assert histogram("Gap", "", [0, 1], {"pairs": ("aligned", [0])}) is None


def test_a_single_step_and_a_constant_are_drawn() -> None:
    for points in ([(5, 1.0)], [(1, 0.0), (2, 0.0)]):
        chart = line_chart("Loss", "", {"loss": ("aligned", points)})
        assert chart is not None
        assert chart.low < points[0][1] < chart.high


def test_a_long_line_is_thinned_and_keeps_its_ends() -> None:
    chart = line_chart("Loss", "", {"loss": ("aligned", [(step, 1.0 / step) for step in range(1, 5_001)])})
    assert chart is not None
    steps = [step for step, _ in chart.lines[0].values]
    assert (steps[0], steps[-1]) == (1, 5_000)
    assert len(steps) <= MAX_POINTS + 1


def test_counts_are_of_the_same_bins_and_sum_to_the_finite_values() -> None:
    found = counted({"base": [0.0, 1.0, math.nan, 2.0], "aligned": [2.0, 3.0]}, bins=3)
    assert found["edges"] == [0, 1, 2, 3]
    assert found["counts"] == {"base": [1, 1, 1], "aligned": [0, 0, 2]}
    assert found["means"] == {"base": 1.0, "aligned": 2.5}
    assert counted({"base": [math.nan], "aligned": []}) == {}


def test_bars_are_shares_of_their_own_series() -> None:
    chart = histogram("Reward", "", [0, 1, 2], {"a": ("base", [1, 1]), "b": ("aligned", [10, 10])}, [(1, "m", "warn")])
    assert chart is not None
    heights = [{bar.height for bar in bars} for _, _, bars in chart.series]
    assert heights[0] == heights[1]
    assert [mark.at for mark in chart.marks] == [(LEFT + WIDTH - RIGHT) / 2]


def test_a_scale_has_everything_in_order() -> None:
    found = scale(0.9, interval=(0.8, 1.0), neutral=0.5, low=0.55)
    assert found.low is not None
    assert found.high is not None
    assert found.neutral is not None
    assert found.allowed is not None
    assert found.neutral < found.allowed[0] < found.low < found.value < found.high < found.allowed[1] == 100
    assert found.edges == (found.allowed[0],)


def test_two_values_beside_each_other_stand_on_one_scale() -> None:
    one, two = scale(1.0, neutral=0.0, beside=[3.0]), scale(3.0, neutral=0.0, beside=[1.0])
    assert one.neutral == two.neutral
    assert one.value < two.value


@pytest.mark.parametrize(("value", "place"), [(math.inf, 100), (math.nan, 100), (-math.inf, 0)])
def test_a_value_that_is_not_finite_stands_at_an_end(value: float, place: float) -> None:
    assert scale(value, low=0.0, high=1.0).value == place


def test_values_that_hardly_differ_are_one_bin() -> None:
    found = counted({"pairs": [0.3 - 0.2, 0.2 - 0.1, 0.1]})
    assert found["counts"] == {"pairs": [3]}
    assert found["edges"] == pytest.approx([0.095, 0.105])
    assert counted({"pairs": [0.0, 0.0]})["edges"] == [-0.5, 0.5]
    for held in (found, counted({"pairs": [1_000_000.25, 1_000_000.5]}, bins=2)):
        edges: Any = held["edges"]
        counts: Any = held["counts"]
        assert histogram("Gap", "", edges, {"pairs": ("aligned", counts["pairs"])}) is not None


def test_the_largest_numbers_have_places() -> None:
    chart = line_chart("Loss", "", {"loss": ("aligned", [(1, 1.7e308), (2, -1.7e308), (3, 0.0)])})
    assert chart is not None
    places = [float(value) for point in chart.lines[0].pieces[0].split() for value in point.split(",")]
    assert all(map(math.isfinite, places))
    assert places[1] < places[5] < places[3], "the largest is the highest, and y grows downwards"
    assert all(math.isfinite(tick.at) for tick in (*chart.up, *chart.across))
    assert counted({"rewards": [1.7e308, -1.7e308]}, bins=2)["edges"] == [-LARGEST, 0, LARGEST]
    assert scale(1.7e308, neutral=-1.7e308).neutral == pytest.approx(100 * 0.14 / 1.28, abs=0.01)
