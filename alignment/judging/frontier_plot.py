"""The frontier as a figure: trained policies by reward and KL, the best of them, and what no training can beat."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignment.config import GatesConfig
from alignment.judging.frontier import (
    CurvePoint,
    FrontierPoint,
    Reference,
    allowed_kl,
    largest_shown,
    pareto,
    trajectories,
)
from alignment.judging.frontier_table import method_of
from alignment.judging.plots import ALIGNED, BASE, FAINT, INK, blank, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Reward against distance from the reference"
COLOURS = ("#1B6CA8", "#C4731B", "#2A8C6E", "#8A4FB0", "#C2406E", "#77801F")  # of losses and divergences
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")  # of betas
TICKS = (0, 0.1, 0.25, 0.5, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200)
DASHES = (0, (4, 3))
FARTHER = 1.035  # where points beyond the axis stand, in parts of the root of its end


def frontier_figure(
    points: Sequence[FrontierPoint],
    ceiling: Sequence[CurvePoint],
    best_of: Sequence[CurvePoint],
    reference: Reference,
    gates: GatesConfig,
    *,
    title: str = TITLE,
) -> "Figure":
    """Mean reward over the KL of a completion; the axis is of its root, on which a normal reward's ceiling is straight.

    Each training is a line over its steps; its colour says the loss and divergence, its markers the beta, and they are
    hollow where gates refused the point. Bars are standard errors, of the points that no other beats. What lies far
    out stands at the right edge, and what is not finite is left out. Raises ValueError where there is nothing to show.
    """
    placed = [point for point in points if point.placed]
    if not (placed or ceiling or best_of):
        raise ValueError("frontier_figure: no point with a finite reward and KL, and no curve")
    gate = allowed_kl(reference, gates.max_kl_per_token)
    trusted = max((point.kl for point in ceiling if point.trusted), default=0.0)
    end = largest_shown((point.kl for point in placed), at_least=max(gate, trusted))
    figure, axes = blank(10.6, 5.6)
    legend: list[Any] = []
    _draw_curves(axes, ceiling, best_of, reference, end, legend)
    _draw_points(axes, placed, reference, end, legend)
    band = axes.axvspan(0, gate, color=ALIGNED, alpha=0.06, linewidth=0, zorder=0)
    band.set_label(f"KL gate: {gates.max_kl_per_token:g} a token, about {gate:.3g} in all")
    axes.axvline(gate, color=ALIGNED, alpha=0.5, linewidth=1.0, linestyle=DASHES, zorder=1)
    _frame(axes, placed, end)
    titled(
        axes,
        title,
        "KL(policy ‖ reference) of a completion, nats, on the scale of its root",
        "mean reward",
    )
    figure.legend(
        handles=[*legend, band],
        loc="outside right upper",
        frameon=False,
        fontsize=8.8,
        labelcolor=INK,
        handlelength=2.2,
    )
    return figure


def _draw_curves(
    axes: Any,
    ceiling: Sequence[CurvePoint],
    best_of: Sequence[CurvePoint],
    reference: Reference,
    end: float,
    legend: list[Any],
) -> None:
    """The ceiling with its error, dashed where it is not trusted, and best-of-n; both from the reference on."""
    curve = [point for point in pareto(ceiling) if point.kl > 0]
    sure = [point for point in curve if point.trusted]
    rest = curve[len(sure) :] if curve[: len(sure)] == sure else [point for point in curve if not point.trusted]
    if sure:
        x, y = _line(sure, reference, end)
        errors = [reference.reward_se, *(point.reward_se for point in sure)][: len(x)]
        (line,) = axes.plot(x, y, color=INK, linewidth=2.0, zorder=3, label="ceiling: no policy can be above")
        axes.fill_between(
            x,
            [value - error for value, error in zip(y, errors, strict=True)],
            [value + error for value, error in zip(y, errors, strict=True)],
            color=INK,
            alpha=0.10,
            linewidth=0,
            zorder=1,
        )
        legend.append(line)
    if rest:
        x, y = _line([*sure[-1:], *rest], None if sure else reference, end)
        legend += axes.plot(
            x, y, color=BASE, linewidth=1.5, linestyle=DASHES, zorder=2, label="ceiling, too few samples: not trusted"
        )
    if best_of:
        x, y = _line(sorted(best_of, key=lambda point: point.kl), None, end)
        label = f"best of n, n up to {max(point.setting for point in best_of):g}"
        legend += axes.plot(x, y, color=BASE, linewidth=1.4, marker=".", markersize=6, zorder=3, label=label)


def _draw_points(
    axes: Any, placed: Sequence[FrontierPoint], reference: Reference, end: float, legend: list[Any]
) -> None:
    """The reference, the trainings, the line of the best points, and what the colours and shapes mean."""
    from matplotlib.lines import Line2D

    methods = sorted({method_of(point, placed) for point in placed})
    colours = {method: COLOURS[order % len(COLOURS)] for order, method in enumerate(methods)}
    betas = sorted({point.beta for point in placed})
    markers = {beta: MARKERS[order % len(MARKERS)] for order, beta in enumerate(betas)}
    for training in trajectories(placed):
        colour = colours[method_of(training[0], placed)]
        axes.plot(*_line(training, None, end), color=colour, linewidth=1.0, alpha=0.4, zorder=4)
        for point in training:
            axes.plot(
                [_across(point.kl, end)],
                [point.reward],
                marker=markers[point.beta],
                markersize=6.2,
                markerfacecolor=colour if point.passed else "white",
                markeredgecolor="white" if point.passed else colour,
                markeredgewidth=0.6 if point.passed else 1.1,
                linestyle="none",
                zorder=5,
            )
    best = pareto(placed)
    if best:
        x, y = [_across(point.kl, end) for point in best], [point.reward for point in best]
        axes.errorbar(x, y, yerr=[_finite(p.reward_se) for p in best], fmt="none", ecolor=INK, elinewidth=0.8, zorder=4)
        legend += axes.plot(x, y, color=INK, linewidth=1.1, linestyle=(0, (1, 1.4)), zorder=6, label="best trained")
    legend += axes.plot(
        [0], [reference.reward], marker="*", markersize=13, color=INK, linestyle="none", zorder=7, label="reference"
    )
    legend += [Line2D([], [], color=colour, linewidth=3, label=method) for method, colour in colours.items()]
    legend += [
        Line2D([], [], color=INK, marker=marker, markersize=5.5, linestyle="none", label=f"β {beta:g}")
        for beta, marker in markers.items()
    ]
    if any(not point.passed for point in placed):
        legend += axes.plot(
            [],
            [],
            color=INK,
            marker="o",
            markersize=5.5,
            markerfacecolor="white",
            linestyle="none",
            label="hollow: refused by gates",
        )


def _frame(axes: Any, placed: Sequence[FrontierPoint], end: float) -> None:
    """The root as the scale of the KL, its ticks, and how many points lie beyond."""
    axes.set_xscale("function", functions=(_root, _square))
    beyond = [point.kl for point in placed if point.kl > end]
    start = min([0.0, *(point.kl for point in placed)])
    axes.set_xlim(min(start, -0.0006 * end), end * (FARTHER + 0.02) ** 2 if beyond else end * 1.02)
    shown: list[float] = []
    for tick in TICKS:  # none so near to another that their numbers would touch
        if tick <= end and (not shown or math.sqrt(tick) - math.sqrt(shown[-1]) > 0.035 * math.sqrt(end)):
            shown.append(tick)
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    if beyond:
        count = f"{len(beyond)} {'point' if len(beyond) == 1 else 'points'} farther out, up to KL {max(beyond):.3g} →"
        axes.axvline(end * 1.005, color=FAINT, linewidth=1.0, zorder=1)
        axes.text(0.995, 0.015, count, transform=axes.transAxes, ha="right", va="bottom", fontsize=8.5, color=INK)


def _line(
    points: Sequence[FrontierPoint] | Sequence[CurvePoint], start: Reference | None, end: float
) -> tuple[list[float], list[float]]:
    """The places of points on the axis, with the reference before them if one is given."""
    shown = [point for point in points if isinstance(point, FrontierPoint) or point.kl <= end]
    x, y = [_across(point.kl, end) for point in shown], [point.reward for point in shown]
    return ([0.0, *x], [start.reward, *y]) if start else (x, y)


def _across(kl: float, end: float) -> float:
    return kl if kl <= end else end * FARTHER**2


def _root(values: Any) -> Any:
    import numpy as np

    return np.sign(values) * np.sqrt(np.abs(values))  # an estimate of a small KL may lie below 0


def _square(values: Any) -> Any:
    import numpy as np

    return np.sign(values) * np.square(values)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
