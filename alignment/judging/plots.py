"""Figures of a run as pure functions: numbers in, a matplotlib Figure out, with no file written and no global state."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from alignment.judging.charts import bin_edges
from alignment.judging.grid import Point
from alignment.judging.report import GateResult, Judgement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#2B303B", "#D9DDE3"
BASE, ALIGNED, WARN = "#8C96A5", "#1B6CA8", "#C4731B"
LINES, MARKERS = (ALIGNED, WARN, BASE, INK), ("o", "s", "^", "D")  # of the losses in a sweep: colours, then shapes
Interval = tuple[float, float]
LEGEND_ROWS = 20  # points of a sweep in one column of the legend

PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("Loss", "mean over pairs", {"loss": "loss"}),
    (
        "Implicit reward",
        "β · log-ratio to the reference",
        {"rewards/chosen": "chosen", "rewards/rejected": "rejected", "rewards/margin": "margin"},
    ),
    ("Accuracy", "pairs with a positive margin", {"rewards/accuracy": "accuracy"}),
    ("Log-probability", "nats per completion", {"logps/chosen": "chosen", "logps/rejected": "rejected"}),
    ("Fall of the chosen", "nats below the reference", {"chosen_drop": "chosen drop"}),
    ("Entropy", "nats per token", {"entropy": "entropy"}),
    ("Learning rate", "learning rate", {"learning_rate": "learning rate"}),
)
COLOURS = {"chosen": ALIGNED, "rejected": BASE, "margin": WARN}


def reward_histogram(
    base_rewards: Sequence[float], aligned_rewards: Sequence[float], winners_mean: float | None
) -> "Figure":
    """Rewards of fresh samples before and after, in the reward's own units, with both means marked.

    The dashed line is the biased baseline: the mean score of the pairs' winners, which selection alone lifts above
    the base's mean; None where the reward scored no pairs. Raises ValueError where either side is empty.
    """
    import numpy as np

    if not len(base_rewards) or not len(aligned_rewards):
        raise ValueError("reward_histogram needs at least one reward on each side")
    edges = bin_edges(np.concatenate([base_rewards, aligned_rewards]), 36)
    figure, axes = blank(8.0, 4.4)
    for rewards, name, colour in ((base_rewards, "base", BASE), (aligned_rewards, "aligned", ALIGNED)):
        mean, share = float(np.mean(rewards)), np.full(len(rewards), 100 / len(rewards))
        axes.hist(rewards, edges, weights=share, color=colour, alpha=0.45, label=f"{name}, {len(rewards):,} samples")
        axes.hist(rewards, edges, weights=share, color=colour, histtype="step", linewidth=1.0)
        axes.axvline(mean, color=colour, linewidth=2.2, label=f"mean of the {name} {_signed(mean)}")
    if winners_mean is not None:
        axes.axvline(
            winners_mean,
            color=WARN,
            linewidth=1.8,
            linestyle=(0, (5, 3)),
            label=f"biased baseline: mean of the winners {_signed(winners_mean)}",
        )
    titled(axes, "Reward of fresh samples on held-out prompts", "reward", "samples (%)")
    _legend_below(figure, axes, columns=3)
    return figure


def gap_histogram(gaps: Sequence[float], min_gap: float) -> "Figure":
    """Score gaps of the pairs, chosen minus rejected in the reward's own units, with the smallest gap that is accepted.

    Raises ValueError where there is no gap to draw.
    """
    if not len(gaps):
        raise ValueError("gap_histogram needs at least one gap")
    below = sum(gap < min_gap for gap in gaps)
    figure, axes = blank(8.0, 4.0)
    edges = bin_edges(gaps, 36)
    axes.hist(gaps, edges, color=ALIGNED, alpha=0.55, edgecolor="white", linewidth=0.6, label=f"{len(gaps):,} pairs")
    axes.axvline(
        min_gap,
        color=WARN,
        linewidth=1.8,
        linestyle=(0, (5, 3)),
        label=f"smallest accepted gap {min_gap:g}, {below:,} {'pair' if below == 1 else 'pairs'} below it",
    )
    titled(axes, "Score gap within a pair", "chosen score − rejected score", "pairs")
    _legend_below(figure, axes, columns=2)
    return figure


def training_curves(history: Sequence[Mapping[str, float]]) -> "Figure":
    """Small panels over the optimiser steps, one for each group of metrics that the history holds.

    Rows need `step`; other keys may be missing, and values that are not finite leave a hole in their line.
    """
    panels = [panel for panel in PANELS if any(key in row for row in history for key in panel[2])]
    columns = min(4 if len(panels) > 6 else 3, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = _figure(4.2 * columns, 2.9 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, unit, lines) in zip(grid.flat, panels, strict=False):
        _bare(axes)
        for key, name in lines.items():
            points = [(row["step"], _finite(row[key])) for row in history if key in row]
            if points:
                steps, values = zip(*points, strict=True)
                marker = "o" if len(points) == 1 else None
                axes.plot(
                    steps,
                    values,
                    color=COLOURS.get(name, ALIGNED),
                    linewidth=1.6,
                    label=name,
                    marker=marker,
                    markersize=4,
                )
        if title == "Accuracy":
            axes.set_ylim(-0.03, 1.03)
        axes.xaxis.get_major_locator().set_params(integer=True)
        titled(axes, title, "step", unit)
        if len(axes.lines) > 1:
            axes.legend(
                loc="lower right",
                bbox_to_anchor=(1.01, 0.995),
                ncols=len(lines),
                frameon=False,
                fontsize=8,
                labelcolor="linecolor",
                handlelength=1.0,
                handletextpad=0.5,
                columnspacing=1.2,
                borderaxespad=0.2,
            )
    return figure


def gates_chart(judgement: Judgement) -> "Figure":
    """One row a gate, each on a scale of its own: the allowed range as a band, the value as a dot."""
    count = max(1, len(judgement.gates))
    figure, axes = blank(8.6, 1.0 + 0.46 * count)
    for row, gate in enumerate(judgement.gates):
        low, high, value = _positions(gate)
        colour = ALIGNED if gate.passed else WARN
        axes.plot([0, 1], [row, row], color=FAINT, linewidth=1.0, zorder=1)
        axes.barh(row, high - low, left=low, height=0.42, color=colour, alpha=0.16, zorder=2)
        for edge, bound in ((low, gate.low), (high, gate.high)):
            if bound is not None:
                axes.plot([edge, edge], [row - 0.21, row + 0.21], color=colour, linewidth=1.4, zorder=3)
        axes.plot([value], [row], marker="o", markersize=8, color=colour, markeredgecolor="white", zorder=4)
        verdict = "passed" if gate.passed else "FAILED"
        axes.text(1.04, row, f"{gate.value:.4g}", va="center", ha="left", fontsize=9.5, color=INK)
        axes.text(1.17, row, gate.bound, va="center", ha="left", fontsize=9.5, color="#6A7382")
        axes.text(1.38, row, verdict, va="center", ha="left", fontsize=9.5, color=colour, weight="bold")
    axes.set_yticks(range(len(judgement.gates)), [gate.name.replace("_", " ") for gate in judgement.gates])
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.56)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_title(
        f"Gates: {judgement.verdict} (band: allowed; each row on its own scale)", loc="left", fontsize=11, color=INK
    )
    return figure


def reward_against_kl(points: Sequence[Point], max_kl_per_token: float) -> "Figure":
    """The frontier of a sweep: reward gain with its interval over KL per token, with the bound of the KL gate.

    Points are numbered in the order of the sweep, from 1, and named in the legend. Those that the gates refused are
    hollow; those without a finite place are left out. Raises ValueError where no point was judged.
    """
    if not any(point.report for point in points):
        raise ValueError("reward_against_kl needs a point that was judged")
    judged = {
        number: (point, point.report.delta)
        for number, point in enumerate(points, 1)
        if point.report
        and point.report.has_reward
        and math.isfinite(point.report.delta.kl_per_token + sum(point.report.delta.reward_gain_ci))
    }
    columns = max(1, math.ceil(len(judged) / LEGEND_ROWS))
    figure, axes = blank(8.0 + 2.4 * columns, 5.0)
    losses = sorted({point.loss for point, _ in judged.values()})
    for number, (point, delta) in judged.items():
        order = losses.index(point.loss)
        colour = LINES[order % len(LINES)]
        low, high = delta.reward_gain_ci
        axes.errorbar(
            [delta.kl_per_token],
            [delta.reward_gain],
            yerr=[[max(0.0, delta.reward_gain - low)], [max(0.0, high - delta.reward_gain)]],
            fmt=MARKERS[order // len(LINES) % len(MARKERS)],
            markersize=7,
            color=colour,
            markerfacecolor=colour if point.passed else "white",
            elinewidth=1.0,
            label=f"{number}  {point.loss}, {point.short}",
        )
    gate = axes.axvline(
        max_kl_per_token, color=WARN, linewidth=1.2, linestyle=(0, (5, 3)), label=f"KL gate {max_kl_per_token:g}"
    )
    axes.margins(0.06, 0.08)
    if max((delta.kl_per_token for _, delta in judged.values()), default=0) > 5 * max_kl_per_token:
        axes.set_xscale("symlog", linthresh=max_kl_per_token)  # an estimate may lie below 0
    hollow = "; hollow: refused" if any(not point.passed for point, _ in judged.values()) else ""
    titled(axes, f"Reward against distance{hollow}", "KL(policy ‖ reference), nats per token", "reward gain")
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside right upper",
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
    )
    places = {n: (delta.kl_per_token, delta.reward_gain, delta.reward_gain_ci) for n, (_, delta) in judged.items()}
    _number(figure, axes, gate, places)
    return figure


def _number(figure: "Figure", axes: Any, gate: Any, places: Mapping[int, tuple[float, float, Interval]]) -> None:
    """Write each number near its point (x, y, interval of y), inside the axes, clear of points, lines and numbers."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # only now the axes have their place
    room, pixel = axes.get_window_extent(), figure.dpi / 72  # of a typographic point
    bound = gate.get_window_extent().x0
    taken = [Bbox.from_extents(bound - pixel, room.y0, bound + pixel, room.y1)]
    for x, y, ends in places.values():
        (across, middle), (bottom, top) = (
            axes.transData.transform((x, y)),
            (axes.transData.transform((x, end))[1] for end in ends),
        )
        taken.append(Bbox.from_extents(across - pixel, bottom, across + pixel, top))
        taken.append(Bbox.from_extents(across, middle, across, middle).padded(5 * pixel))
    for number, (x, y, _) in places.items():
        text = axes.annotate(
            str(number),
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            arrowprops={"arrowstyle": "-", "color": BASE, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
        )
        text.set_in_layout(False)
        text.arrow_patch.set_visible(False)
        box = text.get_window_extent()
        for radius, turn in product(range(10, 400, 4), range(16)):
            angle = math.pi * (2 + turn) / 8
            place = radius * math.cos(angle), radius * math.sin(angle)
            there = box.translated(place[0] * pixel, place[1] * pixel)
            inside = room.x0 < there.x0 and there.x1 < room.x1 and room.y0 < there.y0 and there.y1 < room.y1
            if inside and not any(there.overlaps(other) for other in taken):
                text.set_position(place)
                text.arrow_patch.set_visible(radius > 14)  # a line leads to a point that is not beside it
                taken.append(there.padded(pixel))
                break
        else:  # there is no room; the legend names the point all the same
            text.remove()


def _positions(gate: GateResult) -> tuple[float, float, float]:
    """Where the allowed range starts and ends and where the value lies, on a scale of 0 to 1."""
    marks = [mark for mark in (gate.low, gate.high, gate.value) if mark is not None and math.isfinite(mark)]
    if gate.low is None or gate.high is None:
        marks.append(0.0)
    start, end = min(marks), max(marks)
    pad = 0.15 * ((end - start) or 1.0)
    start, end = start - pad, end + pad

    def place(mark: float) -> float:
        if math.isnan(mark):
            return 1.0
        return min(1.0, max(0.0, (mark - start) / (end - start)))

    low = 0.0 if gate.low is None else place(gate.low)
    high = 1.0 if gate.high is None else place(gate.high)
    return low, high, place(gate.value)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    FigureCanvasAgg(figure)
    return figure


def blank(width: float, height: float) -> tuple["Figure", Any]:
    """A figure of so many inches, and its axes, in the house's look."""
    figure = _figure(width, height)
    axes = figure.subplots()
    _bare(axes)
    return figure, axes


def _bare(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0, labelsize=9)


def titled(axes: Any, title: str, x: str, y: str) -> None:
    """Write a title above the axes and a name beside each."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, pad=8)
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)


def _legend_below(figure: "Figure", axes: Any, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=2.6,
    )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
