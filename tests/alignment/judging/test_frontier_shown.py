"""The frontier for people: what its figure and its page show, and that the page needs no network and trusts no text."""

import base64
import hashlib
import json
import math
import re
from html import unescape
from io import BytesIO
from typing import Any

import pytest

from alignment.config import GatesConfig
from alignment.judging.frontier import CurvePoint, FrontierPoint
from alignment.judging.frontier_page import frontier_page
from alignment.judging.frontier_plot import frontier_figure
from tests.alignment.judging.test_frontier import REFERENCE, point

GATES = GatesConfig()
CEILING = [
    CurvePoint(beta, kl, 0.05, 1 + math.sqrt(2 * kl), 0.1, 20.0 / kl, kl < 3)
    for beta, kl in ((2.0, 0.1), (1.0, 0.5), (0.6, 1.4), (0.4, 3.1), (0.2, 4.0))
]
BEST_OF = [CurvePoint(n, math.log(n) - (n - 1) / n, 0.0, 1 + 0.5 * math.log(n), 0.1, 64 / n, True) for n in (1, 2, 8)]
POINTS = [
    point(0.5, 1.6),
    point(1.5, 2.2, step=20),
    point(0.8, 1.5, loss="sigmoid", beta=0.1),
    point(5.0, 2.4, step=20, loss="sigmoid", beta=0.1, passed=False, refused_by=("kl_per_token",)),
]


def figure_of(points: Any = POINTS, ceiling: Any = CEILING, best_of: Any = BEST_OF) -> Any:
    return frontier_figure(points, ceiling, best_of, REFERENCE, GATES)


def page_of(points: Any = POINTS, ceiling: Any = CEILING, best_of: Any = BEST_OF, **changes: Any) -> str:
    return frontier_page(points, ceiling, best_of, REFERENCE, GATES, **changes)


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def drawn_points(text: str) -> list[dict[str, Any]]:
    found = re.search(r'data-points="([^"]*)"', text)
    assert found
    points: list[dict[str, Any]] = json.loads(unescape(found[1]))
    return points


# The figure


def test_the_figure_names_every_curve_colour_and_marker() -> None:
    figure = figure_of()
    assert legend(figure) == [
        "ceiling: no policy can be above",
        "ceiling, too few samples: not trusted",
        "best of n, n up to 8",
        "best trained",
        "reference",
        "hinge",
        "sigmoid",
        "β 0.1",
        "β 0.5",
        "hollow: refused by gates",
        "KL gate: 0.2 a token, about 4 in all",
    ]
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_refused_points_are_hollow_and_in_their_place() -> None:
    singles = [
        line for line in figure_of().axes[0].lines if line.get_linestyle() == "None" and len(line.get_xdata()) == 1
    ]
    places = {tuple(map(float, line.get_xydata()[0])): line.get_markerfacecolor() for line in singles}
    assert {(each.kl, each.reward) for each in POINTS} <= set(places)
    assert [place for place, colour in places.items() if colour == "white"] == [(5.0, 2.4)]


def test_the_ceiling_starts_at_the_reference_and_its_doubtful_part_goes_on_from_the_trusted_one() -> None:
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure_of().axes[0].lines}
    sure, rest = lines["ceiling: no policy can be above"], lines["ceiling, too few samples: not trusted"]
    assert sure[0] == [0.0, REFERENCE.reward]
    assert rest[0] == sure[-1] == [1.4, pytest.approx(1 + math.sqrt(2.8))]
    assert [place[0] for place in rest] == [1.4, 3.1, 4.0]


def test_what_lies_far_out_stands_at_the_edge_and_is_counted() -> None:
    figure = figure_of([*POINTS, point(80, 0.5, passed=False)])
    (text,) = figure.axes[0].texts
    assert text.get_text() == "1 point farther out, up to KL 80 →"
    assert figure.axes[0].get_xlim()[1] < 20


@pytest.mark.parametrize("points", [[], [point(math.nan, 1.0)], [point(-0.001, 1.0)], [point(0.0, 1.0)]])
def test_the_figure_can_be_drawn_without_a_training(points: list[FrontierPoint]) -> None:
    figure_of(points).savefig(BytesIO(), format="png")


@pytest.mark.parametrize(("ceiling", "best_of"), [([], []), (CEILING[3:], []), (CEILING[:3], BEST_OF[:1])])
def test_the_figure_can_be_drawn_without_a_part_of_its_curves(ceiling: Any, best_of: Any) -> None:
    figure_of(POINTS, ceiling, best_of).savefig(BytesIO(), format="png")


@pytest.mark.parametrize("shown", [figure_of, page_of])
def test_nothing_to_show_is_refused(shown: Any) -> None:
    with pytest.raises(ValueError, match="no point with a finite reward and KL, and no curve"):
        shown([point(math.nan, 1.0)], [], [])


# The page


def test_the_page_holds_what_a_person_may_ask_of_a_point() -> None:
    points = drawn_points(page_of())
    assert [each["name"] for each in points] == [
        "hinge, β 0.5, step 10",
        "sigmoid, β 0.1, step 10",
        "hinge, β 0.5, step 20",
        "sigmoid, β 0.1, step 20",
    ]
    told = dict(points[-1]["told"])
    assert told["reward"] == "+2.40 ± 0.05"
    assert told["gates"] == "refused by kl per token"
    assert told["KL"] == "5.00 ± 0.10"


def test_points_stand_where_their_numbers_say() -> None:
    """On the root of the KL: the point at a KL of 0.5 is as far from the reference as its root says."""
    text = page_of()
    near, *_, far = drawn_points(text)
    start = re.search(r'class="reference".*?transform="translate\(([\d.]+) ([\d.]+)\)"', text)
    assert start
    x, y = map(float, start.groups())
    assert (near["x"] - x) / (far["x"] - x) == pytest.approx(math.sqrt(0.5 / 5.0), abs=0.002)
    assert (y - near["y"]) / (y - far["y"]) == pytest.approx((1.6 - 1.0) / (2.4 - 1.0), abs=0.002)


def test_the_page_says_how_near_the_ceiling_it_is() -> None:
    text = page_of()
    assert "<b>~" in text, "the ceiling at a KL of 3 lies between a trusted point and one that is not"
    assert "The ceiling there rests on too few samples to be trusted." in text
    trusted = page_of(ceiling=[*CEILING[:3], CurvePoint(0.4, 3.0, 0.05, 3.4, 0.1, 9.0, True)])
    assert "<b>50.0%</b>" in trusted, "1.2 gained of 2.4"
    assert "to be trusted" not in trusted


@pytest.mark.parametrize(("sampled", "word"), [(1.7, "agree"), (2.2, "differ")])
def test_the_page_says_by_how_much_the_two_kls_differ_and_what_chance_allows(sampled: float, word: str) -> None:
    """The errors 0.3 and 0.4 make 0.5, and 2.6 standard errors are exceeded by chance once in 100 times."""
    text = page_of([point(0.5, 1.6, kl_se=0.3, kl_sampled=sampled, kl_sampled_se=0.4)])
    assert f"<b>{word}</b>" in text
    told = f"exact and sampled differ by up to {(sampled - 0.5) / 0.5:.1f} standard errors; chance explains 2.6."
    assert f"1 point: {told}" in text


def test_the_page_says_what_it_rests_on() -> None:
    text = page_of(facts={"Model": "mine"})
    for said in (
        "2 policies, measured 4 times",
        "64 held-out prompts",
        "128 samples of the reference for each",
        "mine",
    ):
        assert said in text


def test_the_page_loads_nothing_and_runs_its_own_script_alone() -> None:
    text = page_of()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    allowed = unescape(policy[1])
    for tag in ("style", "script"):
        for content in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in allowed
    assert text.count("<script>") == text.count("<style>") == 2
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
    assert 'style="' not in text


def test_a_name_is_a_text() -> None:
    bad = "<script>alert(1)</script>"
    text = page_of([point(1, 2.0, loss=bad, refused_by=(bad,), passed=False)], title=bad, facts={"Model": bad})
    assert bad not in text
    assert drawn_points(text)[0]["method"] == bad


def test_a_page_before_the_first_training_shows_the_curves() -> None:
    text = page_of([])
    assert "No policy has been judged yet." in text
    assert drawn_points(text) == []
    assert 'class="ceiling"' in text


def test_points_that_are_not_finite_are_counted() -> None:
    assert "1 point is left out" in page_of([*POINTS, point(math.nan, 1.0)])
