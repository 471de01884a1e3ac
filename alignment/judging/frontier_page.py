"""The frontier as a page on which people point at policies, and hide some of them: numbers in, one HTML text out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.config import GatesConfig
from alignment.judging.charts import Tick, nice_ticks
from alignment.judging.formats import NONE, percent, plain, signed
from alignment.judging.frontier import (
    LIMITS,
    CurvePoint,
    FrontierPoint,
    Reference,
    agree,
    allowed_kl,
    fraction_of_ceiling,
    largest_shown,
    pareto,
    trajectories,
)
from alignment.judging.frontier_plot import FARTHER, TICKS, TITLE
from alignment.judging.frontier_table import (
    drop_rows,
    method_of,
    point_row,
    reward_rows,
    step_of,
    with_error,
)
from alignment.judging.page import render

WIDTH, HEIGHT = 900.0, 500.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 12.0, 46.0  # margins around the chart, in its own units
SHAPES = (
    "M-4.4,0a4.4,4.4 0 1,0 8.8,0a4.4,4.4 0 1,0 -8.8,0z",
    "M-4,-4h8v8h-8z",
    "M0,-5L4.8,3.6H-4.8z",
    "M0,-5.4L5,0L0,5.4L-5,0z",
    "M0,5L4.8,-3.6H-4.8z",
    "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "M-5,-2.6L-2.6,-5L0,-2.4L2.6,-5L5,-2.6L2.4,0L5,2.6L2.6,5L0,2.4L-2.6,5L-5,2.6L-2.4,0z",
    "M0,-5.2L4.9,-1.6L3.1,4.2H-3.1L-4.9,-1.6z",
)
"""Of the markers of the betas, as SVG paths around the origin."""
LOOKS = 6  # colours of losses and divergences in the style sheet
LIMIT = 3.0  # the KL of the headline


@dataclass(frozen=True)
class Chart:
    """Where everything is drawn, in the chart's own units, and what a reader is told of each point."""

    points: tuple[Mapping[str, Any], ...]
    lines: tuple[Mapping[str, Any], ...]
    ceiling: str
    band: str
    untrusted: str
    best_of: tuple[Mapping[str, Any], ...]
    best: str
    start: tuple[float, float]
    gate: float
    edge: float | None
    beyond: str
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def frontier_page(
    points: Sequence[FrontierPoint],
    ceiling: Sequence[CurvePoint],
    best_of: Sequence[CurvePoint],
    reference: Reference,
    gates: GatesConfig,
    *,
    title: str = TITLE,
    facts: Mapping[str, str] | None = None,
) -> str:
    """The page: the chart, the best within each KL, each training's highest and last reward, and every point.

    `facts` are further lines below the title, such as the model's name. Without a script the page shows everything but
    what pointing and hiding give. Raises ValueError where there is nothing to show.
    """
    placed = [point for point in points if point.placed]
    if not (placed or ceiling or best_of):
        raise ValueError("frontier_page: no point with a finite reward and KL, and no curve")
    methods = sorted({method_of(point, placed) for point in placed})
    betas = sorted({point.beta for point in placed})
    share = fraction_of_ceiling(placed, ceiling, reference, LIMIT)
    return render(
        "frontier.html",
        title=title,
        facts=_facts(points, reference) | dict(facts or {}),
        chart=_chart(placed, ceiling, best_of, reference, gates, methods, betas),
        methods=[(method, order % LOOKS) for order, method in enumerate(methods)],
        betas=[(f"{beta:g}", SHAPES[order % len(SHAPES)]) for order, beta in enumerate(betas)],
        share=share,
        share_text=NONE if share.fraction is None else f"{'' if share.trusted else '~'}{percent(share.fraction)}",
        best_name="no policy is so near" if share.point is None else step_of(share.point, placed),
        best_reward=NONE if share.point is None else with_error(share.point.reward, share.point.reward_se),
        agreement=agree(placed),
        reference=reference,
        gates=gates,
        gate_kl=allowed_kl(reference, gates.max_kl_per_token),
        rewards=[
            (row, limit, fraction_of_ceiling(placed, ceiling, reference, limit))
            for row, limit in zip(reward_rows(placed, ceiling, best_of, reference), LIMITS, strict=True)
        ],
        drops=drop_rows(placed),
        rows=[point_row(point, placed) for point in sorted(placed, key=lambda point: (point.trajectory, point.step))],
        left_out=len(points) - len(placed),
        refused=sum(not point.passed for point in placed),
    )


def _facts(points: Sequence[FrontierPoint], reference: Reference) -> dict[str, str]:
    trainings = len(trajectories(points))
    without = f"; {reference.left_out:,} left out of the ceiling, with too few scores" if reference.left_out else ""
    return {
        "Trained": f"{trainings} {'policy' if trainings == 1 else 'policies'}, measured {len(points)} times",
        "Judged on": f"{reference.prompts:,} held-out prompts{without}",
        "Reference": f"reward {with_error(reference.reward, reference.reward_se)}, {reference.tokens:.1f} tokens",
        "Ceiling from": f"{reference.samples:,} samples of the reference for each prompt",
    }


def _chart(
    placed: Sequence[FrontierPoint],
    ceiling: Sequence[CurvePoint],
    best_of: Sequence[CurvePoint],
    reference: Reference,
    gates: GatesConfig,
    methods: Sequence[str],
    betas: Sequence[float],
) -> Chart:
    gate = allowed_kl(reference, gates.max_kl_per_token)
    sure = [point for point in pareto(ceiling) if point.trusted and point.kl > 0]
    rest = [point for point in pareto(ceiling) if point.kl > (sure[-1].kl if sure else 0)]
    end = largest_shown((point.kl for point in placed), at_least=max(gate, sure[-1].kl if sure else 0))
    beyond = [point.kl for point in placed if point.kl > end]
    rewards = [reference.reward, *(p.reward for p in placed), *(p.reward for p in (*ceiling, *best_of))]
    pad = 0.05 * (max(rewards) - min(rewards)) or 0.5
    low, high = min(rewards) - pad, max(rewards) + pad
    last = end * FARTHER * FARTHER if beyond else end

    def across(kl: float) -> float:
        root = math.sqrt(max(0.0, kl if kl <= end else end * FARTHER * FARTHER) / (last * 1.02))
        return round(LEFT + root * (WIDTH - LEFT - RIGHT), 1)

    def up(reward: float) -> float:
        return round(HEIGHT - BOTTOM - (reward - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def line(found: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{across(kl):g},{up(reward):g}" for kl, reward in found if kl <= end)

    def place(point: FrontierPoint | CurvePoint) -> tuple[float, float]:
        return point.kl, point.reward

    start = (0.0, reference.reward)
    upper = [(0.0, reference.reward + reference.reward_se), *((p.kl, p.reward + p.reward_se) for p in sure)]
    lower = [(0.0, reference.reward - reference.reward_se), *((p.kl, p.reward - p.reward_se) for p in sure)]
    ticks: list[Tick] = []
    for tick in TICKS:  # none so near to another that their numbers would touch
        if tick <= end and (not ticks or across(tick) - ticks[-1].at > 45):
            ticks.append(Tick(across(tick), f"{tick:g}"))
    return Chart(
        points=tuple(
            {
                "x": across(point.kl),
                "y": up(point.reward),
                "kl": point.kl,
                "reward": point.reward,
                "method": method_of(point, placed),
                "look": methods.index(method_of(point, placed)) % LOOKS,
                "beta": f"{point.beta:g}",
                "shape": SHAPES[betas.index(point.beta) % len(SHAPES)],
                "passed": point.passed,
                "name": step_of(point, placed),
                "told": list(point_row(point, placed).items())[2:],
                "inside": point.kl <= end,
            }
            for point in sorted(placed, key=place)
        ),
        lines=tuple(
            {
                "look": methods.index(method_of(training[0], placed)) % LOOKS,
                "method": method_of(training[0], placed),
                "beta": f"{training[0].beta:g}",
                "places": " ".join(f"{across(point.kl):g},{up(point.reward):g}" for point in training),
            }
            for training in trajectories(placed)
        ),
        ceiling=line([start, *map(place, sure)]) if sure else "",
        band=line([*upper, *reversed(lower)]) if sure else "",
        untrusted=line([*(map(place, sure[-1:]) if sure else [start]), *map(place, rest)]) if rest else "",
        best_of=tuple(
            {
                "x": across(point.kl),
                "y": up(point.reward),
                "said": f"best of {point.setting:g}: {signed(point.reward)} at a KL of at most {plain(point.kl)}",
            }
            for point in sorted(best_of, key=place)
            if point.kl <= end
        ),
        best=" ".join(f"{across(point.kl):g},{up(point.reward):g}" for point in pareto(placed)),
        start=(across(0.0), up(reference.reward)),
        gate=across(min(gate, end)),
        edge=across(end) if beyond else None,
        beyond=f"{len(beyond)} farther out, up to KL {max(beyond):.3g} →" if beyond else "",
        across=tuple(ticks),
        up=tuple(Tick(up(value), f"{value:g}".replace("-", "−")) for value in nice_ticks(low, high, 6)),
    )
