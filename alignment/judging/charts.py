"""The geometry of a page's charts as plain numbers, which a template draws as SVG: lines, histograms and scales."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

WIDTH, HEIGHT = 340.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 24.0  # margins around a chart, in its own units
MAX_POINTS = 400  # of a line: more than a screen has room for
BINS = 30
LARGEST = 1e300  # what is further from 0 is drawn there, so that differences of two values stay finite
CONSTANT = 1e-9  # values that differ by less than this part of them are one bin

if TYPE_CHECKING:
    import numpy as np

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what is written there."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """One line: its name, its look (a CSS class), its pieces as SVG `points`, and its values for a reader."""

    name: str
    look: str
    pieces: tuple[str, ...]
    values: tuple[tuple[float, float], ...]
    dots: tuple[tuple[float, float], ...] = ()
    """Points with a hole on both sides, of which no line can be made."""


@dataclass(frozen=True)
class LineChart:
    """Lines over steps with their axes; `low`..`high` and `first`..`last` are what the axes span."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    first: float
    last: float
    low: float
    high: float

    @property
    def said(self) -> str:
        """What the chart shows in words, for who does not see it."""
        ends = (
            f"{line.name} {line.values[0][1]:.4g} at step {line.values[0][0]:g}, "
            f"{line.values[-1][1]:.4g} at step {line.values[-1][0]:g}"
            for line in self.lines
            if line.values
        )
        return f"{self.title}: {'; '.join(ends)}"


@dataclass(frozen=True)
class Bar:
    """One bin of one series: a rectangle, and how many there are in which range."""

    x: float
    y: float
    width: float
    height: float
    said: str


@dataclass(frozen=True)
class Mark:
    """A vertical line in a histogram."""

    at: float
    text: str
    look: str


@dataclass(frozen=True)
class Histogram:
    """Bars of one or two series over the same bins, and marks."""

    title: str
    unit: str
    series: tuple[tuple[str, str, tuple[Bar, ...]], ...]
    """Each with its name, its look and its bars."""
    marks: tuple[Mark, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


@dataclass(frozen=True)
class Scale:
    """A value on a short horizontal scale, as percentages of its width; None for what it does not have."""

    value: float
    low: float | None = None
    high: float | None = None
    """The ends of the value's interval."""
    neutral: float | None = None
    """Where nothing changed."""
    allowed: tuple[float, float] | None = None
    edges: tuple[float, ...] = ()
    """The bounds: those ends of `allowed` that are not open."""


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values within `low`..`high`."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    found: list[float] = []
    while (first + len(found)) * step <= high + 1e-9 * step:
        found.append((first + len(found)) * step)
    return [0.0 if abs(value) < 1e-9 * step else value for value in found]


def line_chart(title: str, unit: str, lines: Mapping[str, tuple[str, Points]]) -> LineChart | None:
    """Lines by name, each a look and its (step, value) points; a value that is not finite leaves a hole.

    None where no line has a finite point.
    """
    lines = {name: (look, [(x, _bounded(y)) for x, y in points]) for name, (look, points) in lines.items()}
    finite = [(x, y) for _, points in lines.values() for x, y in points if math.isfinite(y)]
    if not finite:
        return None
    steps, values = zip(*finite, strict=True)
    first, last = min(steps), max(steps)
    low, high = _padded(min(values), max(values))

    def place(x: float, y: float) -> tuple[float, float]:
        return _across(x, first, last), _up(y, low, high)

    drawn = []
    for name, (look, points) in lines.items():
        kept = _thinned(sorted(points))
        pieces, dots = _pieces([(x, y, place(x, y) if math.isfinite(y) else None) for x, y in kept])
        shown = tuple((float(x), float(f"{y:.5g}")) for x, y in kept if math.isfinite(y))
        drawn.append(Line(name, look, pieces, shown, dots))
    return LineChart(
        title,
        unit,
        tuple(line for line in drawn if line.values),
        tuple(Tick(_across(x, first, last), f"{x:g}") for x in nice_ticks(first, last) if x == round(x)),
        tuple(Tick(_up(y, low, high), _short(y)) for y in nice_ticks(low, high)),
        first,
        last,
        low,
        high,
    )


def histogram(
    title: str,
    unit: str,
    edges: Sequence[float],
    series: Mapping[str, tuple[str, Sequence[int]]],
    marks: Sequence[tuple[float, str, str]] = (),
) -> Histogram | None:
    """Counts of each bin by the series' names, each with a look; drawn as shares, so that unlike sizes compare.

    `marks` are (value, text, look), and one outside of the bins is left out. None without any count.
    """
    totals = {name: sum(counts) for name, (_, counts) in series.items()}
    shares = {
        name: [count / totals[name] for count in counts] for name, (_, counts) in series.items() if totals.get(name)
    }
    if not shares or len(edges) < 2 or edges[-1] <= edges[0]:
        return None
    top = 1.08 * max(max(each) for each in shares.values())
    start, end = edges[0], edges[-1]
    drawn = []
    for name, found in shares.items():
        look, counts = series[name]
        bars = []
        for left, right, share, count in zip(edges, edges[1:], found, counts, strict=False):
            x, y = _across(left, start, end), _up(share, 0.0, top)
            said = f"{name}: {count:,} from {left:.3g} to {right:.3g}"
            bars.append(Bar(x, y, round(_across(right, start, end) - x, 2), round(HEIGHT - BOTTOM - y, 2), said))
        drawn.append((name, look, tuple(bar for bar in bars if bar.height > 0)))
    return Histogram(
        title,
        unit,
        tuple(drawn),
        tuple(Mark(_across(at, start, end), text, look) for at, text, look in marks if start <= at <= end),
        tuple(Tick(_across(x, start, end), _short(x)) for x in nice_ticks(start, end, 5)),
        tuple(Tick(_up(y, 0.0, top), f"{100 * y:g}%") for y in nice_ticks(0.0, top, 3)),
    )


def counted(values: Mapping[str, Sequence[float]], bins: int = BINS) -> dict[str, object]:
    """The same equal bins for several series: `edges`, and `counts` of each by its name; empty without a value."""
    import numpy as np

    arrays = {name: np.asarray(each, dtype=np.float64) for name, each in values.items()}
    arrays = {name: np.clip(each[np.isfinite(each)], -LARGEST, LARGEST) for name, each in arrays.items()}
    everything = np.concatenate([*arrays.values(), np.empty(0)])
    if not everything.size:
        return {}
    edges = bin_edges(everything, bins)
    return {
        "edges": [float(f"{edge:.12g}") for edge in edges],
        "counts": {name: np.histogram(each, edges)[0].tolist() for name, each in arrays.items()},
        "means": {name: float(each.mean()) for name, each in arrays.items() if each.size},
    }


def bin_edges(values: "Sequence[float] | np.ndarray", bins: int) -> "np.ndarray":
    """The ends of equal bins over finite values, of which there is one at least; one bin where they hardly differ."""
    import numpy as np

    low, high = (float(end) for end in np.clip([np.min(values), np.max(values)], -LARGEST, LARGEST))
    if high - low <= CONSTANT * max(abs(low), abs(high)):
        pad = 0.05 * max(abs(low), abs(high)) or 0.5
        return np.array([low - pad, high + pad])
    return np.linspace(low, high, bins + 1)


def scale(
    value: float,
    *,
    interval: tuple[float, float] | None = None,
    neutral: float | None = None,
    low: float | None = None,
    high: float | None = None,
    beside: Sequence[float] = (),
) -> Scale:
    """A value with its interval, the place of no change and the allowed range (None: open at that end).

    The scale spans what is `beside` it as well, so that two values can stand on the same one.
    """
    given: list[float | None] = [value, *(interval or ()), neutral, low, high, *beside]
    marks = [_bounded(mark) for mark in given if mark is not None and math.isfinite(mark)] or [0.0]
    pad = 0.14 * ((max(marks) - min(marks)) or 1.0)
    start, end = min(marks) - pad, max(marks) + pad

    def place(mark: float) -> float:
        if not math.isfinite(mark):
            return 0.0 if mark == -math.inf else 100.0
        return round(100 * (_bounded(mark) - start) / (end - start), 2)

    bounds = [bound for bound in (low, high) if bound is not None]
    return Scale(
        place(value),
        None if interval is None else place(interval[0]),
        None if interval is None else place(interval[1]),
        None if neutral is None else place(neutral),
        (place(-math.inf if low is None else low), place(math.inf if high is None else high)) if bounds else None,
        tuple(map(place, bounds)),
    )


def _pieces(
    placed: Sequence[tuple[float, float, tuple[float, float] | None]],
) -> tuple[tuple[str, ...], tuple[tuple[float, float], ...]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for _, _, where in placed:
        if where is None:
            runs.append([])
        else:
            runs[-1].append(where)
    lines = tuple(" ".join(f"{x:g},{y:g}" for x, y in run) for run in runs if len(run) > 1)
    return lines, tuple(run[0] for run in runs if len(run) == 1)


def _thinned(points: Points) -> list[tuple[float, float]]:
    """Every so many points, the last included."""
    stride = math.ceil(len(points) / MAX_POINTS) or 1
    kept = list(points[::stride])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return float(low - pad), float(high + pad)


def _bounded(value: float) -> float:
    return max(-LARGEST, min(LARGEST, value)) if math.isfinite(value) else value


def _across(x: float, first: float, last: float) -> float:
    share = (x - first) / (last - first) if last > first else 0.5
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _up(y: float, low: float, high: float) -> float:
    return round(HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)


def _short(value: float) -> str:
    return f"{value:.3g}".replace("e-0", "e-").replace("-", "−")
