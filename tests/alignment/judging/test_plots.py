"""The figures: what each one shows, and that none of it touches pyplot's global state."""

import math
import subprocess
import sys
from io import BytesIO
from typing import Any

import pytest

from alignment.judging.grid import Point
from alignment.judging.plots import (
    gap_histogram,
    gates_chart,
    reward_against_kl,
    reward_histogram,
    training_curves,
)
from alignment.judging.report import GateResult, Judgement
from tests.reports import make_report

ROW = {
    "loss": 0.69,
    "learning_rate": 3e-4,
    "rewards/chosen": 0.1,
    "rewards/rejected": -0.2,
    "rewards/margin": 0.3,
    "rewards/accuracy": 0.75,
    "logps/chosen": -60.0,
    "logps/rejected": -62.0,
    "chosen_drop": 0.2,
    "entropy": 2.0,
}


def png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def titles(figure: Any) -> list[str]:
    return [title for axes in figure.axes if (title := axes.get_title(loc="left"))]


def test_rewards_mark_both_means_and_name_the_biased_baseline() -> None:
    figure: Any = reward_histogram([0.0, 1.0], [2.0, 3.0], 1.25)
    assert legend(figure) == [
        "base, 2 samples",
        "mean of the base +0.50",
        "aligned, 2 samples",
        "mean of the aligned +2.50",
        "biased baseline: mean of the winners +1.25",
    ]
    drawn = {float(line.get_xdata()[0]): line.get_linestyle() for line in figure.axes[0].lines}
    assert sorted(drawn) == [0.5, 1.25, 2.5]
    assert [x for x, style in drawn.items() if style == "--"] == [1.25]
    assert png(figure).startswith(b"\x89PNG")


def test_rewards_are_drawn_without_a_baseline_where_the_reward_scored_no_pairs() -> None:
    figure: Any = reward_histogram([0.0, 1.0], [2.0, 3.0], None)
    assert not [text for text in legend(figure) if "baseline" in text]
    assert len(figure.axes[0].lines) == 2


def test_bars_are_shares_so_that_sides_of_unequal_size_compare() -> None:
    axes = reward_histogram([0.0] * 10, [0.0] * 90, 0.0).axes[0]
    heights = [
        patch.get_height() for container in axes.containers for patch in container if hasattr(patch, "get_height")
    ]
    assert max(heights) == pytest.approx(100)


def test_equal_rewards_can_be_drawn() -> None:
    assert png(reward_histogram([1.0], [1.0], 1.0))


@pytest.mark.parametrize(("base", "aligned"), [([], [1.0]), ([1.0], [])])
def test_no_rewards_are_refused(base: list[float], aligned: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one reward on each side"):
        reward_histogram(base, aligned, 0.0)


def test_gaps_count_what_lies_below_the_bound() -> None:
    figure = gap_histogram([0.01, 0.2, 1.0], 0.05)
    assert legend(figure) == ["3 pairs", "smallest accepted gap 0.05, 1 pair below it"]
    assert png(figure)


def test_no_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one gap"):
        gap_histogram([], 0.05)


def test_curves_show_every_metric_in_its_panel_and_say_which_line_is_which() -> None:
    figure = training_curves([{"step": step, **ROW} for step in (5, 10, 15)])
    assert titles(figure) == [
        "Loss",
        "Implicit reward",
        "Accuracy",
        "Log-probability",
        "Fall of the chosen",
        "Entropy",
        "Learning rate",
    ]
    shown = figure.axes[1].get_legend()
    assert shown is not None
    assert [text.get_text() for text in shown.get_texts()] == ["chosen", "rejected", "margin"]
    assert all(axes.get_ylabel() for axes in figure.axes if axes.axison)
    assert png(figure)


def test_a_key_that_is_missing_leaves_out_its_panel_or_its_points() -> None:
    history = [{"step": 1.0, "loss": 0.7}, {"step": 2.0, "loss": 0.6, "learning_rate": 1e-4}]
    figure: Any = training_curves(history)
    assert titles(figure) == ["Loss", "Learning rate"]
    assert [len(axes.lines[0].get_xdata()) for axes in figure.axes] == [2, 1]
    assert png(figure)


def test_values_that_are_not_finite_leave_a_hole() -> None:
    figure: Any = training_curves([{"step": 1.0, "loss": math.inf}, {"step": 2.0, "loss": 0.6}])
    assert math.isnan(figure.axes[0].lines[0].get_ydata()[0])
    assert png(figure)


def test_an_empty_history_gives_an_empty_figure() -> None:
    assert titles(training_curves([])) == []


@pytest.mark.parametrize("value", [0.31, math.nan, math.inf])
def test_gates_say_passed_and_failed_in_words(value: float) -> None:
    gates = (
        GateResult(name="win_rate", value=0.9, low=0.55, high=None, passed=True, why="x"),
        GateResult(name="kl_per_token", value=value, low=None, high=0.2, passed=False, why="x"),
        GateResult(name="perplexity_ratio", value=1.0, low=0.7, high=1.25, passed=True, why="x"),
    )
    figure = gates_chart(Judgement(verdict="fail", sentence="s", gates=gates))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text for text in texts if text in {"passed", "FAILED"}] == ["passed", "FAILED", "passed"]
    assert ">= 0.55" in texts
    assert png(figure)


def point(loss: str, gain: float, kl: float, passed: bool = True) -> Point:
    report = make_report(
        delta={"reward_gain": gain, "reward_gain_ci": (gain - 0.25, gain + 0.5), "kl_per_token": kl},
    )
    judgement = Judgement(verdict="pass" if passed else "fail", sentence="s", gates=())
    return Point(loss, 0.5, 1e-4, "r", report, judgement, "s")


BROKEN = Point("ipo", 0.5, 1.0, "", None, None, "training diverged")


def test_the_frontier_shows_each_judged_point_with_its_interval_and_the_bound_of_the_gate() -> None:
    figure: Any = reward_against_kl([point("hinge", 1.0, 0.1), point("sigmoid", 2.0, 0.3, passed=False), BROKEN], 0.2)
    axes = figure.axes[0]
    assert legend(figure) == ["KL gate 0.2", "1  hinge, β 0.5, lr 0.0001", "2  sigmoid, β 0.5, lr 0.0001"]
    passed, refused = (container.lines[0] for container in axes.containers)
    assert [list(line.get_xydata()[0]) for line in (passed, refused)] == [[0.1, 1.0], [0.3, 2.0]]
    assert passed.get_markerfacecolor() != "white" == refused.get_markerfacecolor()
    ((bar,),) = (container.lines[2][0].get_segments() for container in axes.containers[:1])
    assert [end[1] for end in bar] == pytest.approx([0.75, 1.5])
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
    assert png(figure).startswith(b"\x89PNG")


def test_every_loss_that_a_sweep_may_try_looks_unlike_the_others() -> None:
    losses = [f"loss {number:02}" for number in range(16)]
    figure: Any = reward_against_kl([point(loss, 1.0, 0.1) for loss in losses], 0.2)
    assert legend(figure)[1:] == [f"{number}  {loss}, β 0.5, lr 0.0001" for number, loss in enumerate(losses, 1)]
    lines = [container.lines[0] for container in figure.axes[0].containers]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 16


def test_word_salad_far_away_and_an_estimate_below_zero_are_both_in_the_frontier() -> None:
    """KL is an estimate, so it may be negative; a salad lies at 5 nats, where the good ones lie within 0.2."""
    near, far = point("hinge", 0.1, -0.01), point("hinge", 3.0, 5.0, passed=False)
    figure = reward_against_kl([near, far], 0.2)
    figure.canvas.draw()
    axes = figure.axes[0]
    for x in (-0.01, 5.0):
        place = axes.transData.transform((x, 1.0))[0]
        assert axes.bbox.x0 <= place <= axes.bbox.x1
    assert png(figure)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_point_without_a_finite_place_is_left_out_of_the_frontier(value: float) -> None:
    figure = reward_against_kl([point("hinge", 1.0, 0.1), point("ipo", value, value, passed=False)], 0.2)
    assert [text.get_text() for text in figure.axes[0].texts] == ["1"]
    assert png(figure)
    assert png(reward_against_kl([point("ipo", value, value, passed=False)], 0.2))


def inside(box: Any, other: Any) -> bool:
    return bool(other.x0 <= box.x0 <= box.x1 <= other.x1 and other.y0 <= box.y0 <= box.y1 <= other.y1)


@pytest.mark.parametrize(
    "places",
    [
        [(0.1, 1.0)],
        [(0.1 + 0.001 * number, 1.0 + 0.01 * (number % 3)) for number in range(16)],
        [(0.1, 1.0)] * 12,
        [(0.02, 0.6), (0.2, 1.1), (0.199, 0.9)],
        [(0.05, 1.0), (0.06, 1.01), (3.0, 2.0)],
    ],
    ids=["one", "a-crowd", "all-in-one-place", "on-the-gate", "one-far-away"],
)
def test_no_text_of_the_frontier_leaves_the_figure_or_lies_on_another_or_on_a_line(places: list[Any]) -> None:
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure: Any = reward_against_kl([point("hinge", gain, kl) for kl, gain in places], 0.2)
    figure.canvas.draw()
    axes = figure.axes[0]
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    ticks = {*axes.get_xticklabels(), *axes.get_yticklabels()}
    (left, right), (bottom, top) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    shown = [
        text
        for text in shown
        if text not in ticks or (left <= text.get_position()[0] <= right and bottom <= text.get_position()[1] <= top)
    ]
    boxes = [Text.get_window_extent(text) for text in shown]  # of an annotation without the line that leads to it
    assert [text.get_text() for text in axes.texts] == [str(number) for number in range(1, len(places) + 1)]
    for number, box in enumerate(boxes):
        assert inside(box, figure.bbox), shown[number]
        assert not [shown[other] for other in range(number) if box.overlaps(boxes[other])], shown[number]
    numbers = [Text.get_window_extent(text) for text in axes.texts]
    gate = axes.lines[-1].get_window_extent()
    for container in axes.containers:
        (mark,), (bar,) = container.lines[0].get_xydata(), container.lines[2][0].get_segments()
        x, y = axes.transData.transform(mark)
        bar = axes.transData.transform(bar)
        for box in numbers:
            assert not box.overlaps(Bbox.from_extents(x - 5, y - 5, x + 5, y + 5))
            assert not box.overlaps(Bbox([bar[0], bar[1]]))
    assert not any(box.overlaps(gate) for box in numbers)
    assert all(inside(box, axes.bbox) for box in numbers)


def test_values_that_hardly_differ_are_drawn_as_one_bin() -> None:
    gaps = [0.3 - 0.2, 0.2 - 0.1, 0.1]
    figure: Any = gap_histogram(gaps, 0.05)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [3]
    assert png(reward_histogram(gaps, gaps, None))


def test_a_frontier_without_a_judged_point_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a point that was judged"):
        reward_against_kl([BROKEN], 0.2)


def test_pyplot_stays_unimported() -> None:
    code = (
        "import sys; from alignment.judging.plots import gap_histogram; assert 'matplotlib' not in sys.modules; "
        "gap_histogram([1.0], 0.1); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
