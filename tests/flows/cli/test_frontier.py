"""The tables of a frontier: whole at 80 columns, each training at its end, the best policy within each KL."""

import math

import pytest
from rich.console import Console

from alignment.judging.frontier import CurvePoint, FrontierPoint, Reference
from flows.cli.frontier import show_best, show_trainings
from tasks.frontier import Found, in_words
from tests.flows.cli.screen import WIDTHS, screen

REFERENCE = Reference(-0.1, 0.05, 5.1, 0.3, 40.0, 128, 2)


def point(loss: str, beta: float, step: int, kl: float, reward: float, sampled: float = math.nan) -> FrontierPoint:
    passed = kl < 6
    return FrontierPoint(
        loss=loss,
        divergence="reverse_kl",
        beta=beta,
        learning_rate=3e-4,
        seed=0,
        step=step,
        reward=reward,
        reward_se=0.05,
        kl=kl,
        kl_se=0.1,
        kl_sampled=kl if math.isnan(sampled) else sampled,
        kl_sampled_se=0.2,
        entropy=5.1,
        distinct_2=0.3,
        perplexity_ratio=1.1,
        kl_per_token=kl / 40,
        passed=passed,
        refused_by=() if passed else ("kl_per_token",),
    )


POINTS = (
    *(point("hinge", 0.05, step, kl, reward) for step, kl, reward in ((1_000, 2.5, 1.4), (2_000, 13.42, 0.9))),
    *(point("sigmoid", 5.0, step, kl, reward) for step, kl, reward in ((1_000, 0.4, 0.3), (2_000, 0.9, 0.6))),
)
CEILING = (CurvePoint(1.0, 1.0, 0.02, 1.1, 0.03, 30.0, True), CurvePoint(0.3, 4.0, 0.1, 2.3, 0.05, 3.0, False))
BEST_OF_N = (CurvePoint(1, 0.0, 0.0, -0.1, 0.05, 4.0, True), CurvePoint(4, 0.64, 0.0, 0.8, 0.05, 1.0, True))
FOUND = Found(POINTS, CEILING, BEST_OF_N, REFERENCE)


@WIDTHS
def test_a_training_is_one_line_its_end_and_what_it_lost_after_its_peak(width: int) -> None:
    text = screen(lambda console: show_trainings(POINTS, console), width)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[2:4] == [
        "hinge 0.05 2,000 +0.90 ± 0.05 13.42 ± 0.10 13.42 1.10 0.50 kl per token",
        "sigmoid 5 2,000 +0.60 ± 0.05 0.90 ± 0.10 0.90 1.10 0.00 –",
    ]
    assert lines[1].endswith("lost refused by")
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(
    ("refused_by", "ends"),
    [((), "passed"), (("kl_per_token", "perplexity_ratio"), "refused")],
    ids=["none refused", "too many to name"],
)
def test_where_gates_are_not_named_it_is_told_whether_they_passed(refused_by: tuple[str, ...], ends: str) -> None:
    last = FrontierPoint(**{**POINTS[1].row(), "refused_by": refused_by, "passed": not refused_by})
    lines = screen(lambda console: show_trainings((POINTS[0], last), console), 80).splitlines()
    assert lines[1].split()[-1] == "gates"
    assert lines[2].split()[-1] == ends


def test_a_seed_is_told_where_there_are_several() -> None:
    other = FrontierPoint(**{**POINTS[0].row(), "seed": 3, "refused_by": ()})
    text = screen(lambda console: show_trainings((POINTS[0], other), console), 80)
    assert "seed" in text.splitlines()[1]
    assert "seed" not in screen(lambda console: show_trainings(POINTS, console), 80)


def test_no_figure_is_cut_off_where_much_is_varied() -> None:
    """At 80 columns two divergences, learning rates and seeds leave no room for three of the figures."""
    changes = {"divergence": "forward_kl", "learning_rate": 1e-4, "seed": 1, "refused_by": ()}
    others = [FrontierPoint(**{**each.row(), **changes}) for each in POINTS]
    found = Found((*POINTS, *others), CEILING, BEST_OF_N, REFERENCE)

    def show(console: Console) -> None:
        show_trainings(found.points, console)
        show_best(found, console)

    for width, heads in ((80, "KL gates"), (120, "KL sampled ppl lost refused by")):
        text = screen(show, width)
        words = " ".join(text.split())
        assert max(map(len, text.splitlines())) <= width
        assert f"loss beta divergence lr seed step reward {heads} " in words
        assert "hinge 0.05 forward_kl 0.0001 1 2,000 +0.90 ± 0.05 13.42 ± 0.10" in words
        assert ("A wider terminal shows lost, ppl, sampled too" in words) == (width == 80)
        assert "…" not in text


@WIDTHS
def test_the_best_within_each_kl_stands_beside_the_ceiling_there(width: int) -> None:
    """Of the gain from -0.1 to 1.1 at a KL of 1, the best policy has 0.7: 58.3%. Beyond 1 the ceiling is doubtful."""
    text = screen(lambda console: show_best(FOUND, console), width)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[2].startswith("1 +0.60 ± 0.05 0.90 +1.10 58.3% sigmoid, β 5, step 2000 passed")
    assert "~" in lines[4]
    assert "~ marks where its samples are too few" in " ".join(lines)
    assert max(map(len, text.splitlines())) <= width


def test_in_words_the_best_within_three_nats_is_told_with_its_share() -> None:
    told = in_words([FOUND])
    assert told.startswith(
        "4 policies of 2 trainings; the best within 3 nats is hinge, β 0.05, step 1000: reward +1.40 ± 0.05 "
        "at a KL of 2.50 ± 0.10 (every gate passed), about "
    )
    assert "disagree" not in told


def test_in_words_two_kls_that_disagree_are_told() -> None:
    """One is 2 nats above the other, with errors of 0.1 and 0.2."""
    found = Found((point("hinge", 0.5, 10, 1.0, 0.5, sampled=3.0),), CEILING, BEST_OF_N, REFERENCE)
    assert "The exact and the sampled KL disagree, by up to 8.9 standard errors" in in_words([found])
