"""Counts what each criterion caught and missed, with Wilson's intervals, and prints it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gates.criteria import Passes
from benchmarks.gates.rows import Row
from benchmarks.gates.truth import CLASSES, Class, class_of

Z = 1.959964  # of a 95% interval
TARGETS: dict[Class, float] = {"good": 0.95, "degraded": 0.95, "word salad": 1.0}


@dataclass(frozen=True)
class Count:
    """So many `right` verdicts of `runs`: refusals of bad runs, or passes of good ones."""

    right: int
    runs: int

    @property
    def share(self) -> float:
        """The fraction of right verdicts; nan without a run."""
        return self.right / self.runs if self.runs else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95% interval (Wilson 1927), (nan, nan) without a run."""
        if not self.runs:
            return math.nan, math.nan
        n, p, z = self.runs, self.share, Z
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))

    def __str__(self) -> str:
        """As `7/8 88% (53–98)`, the interval in percent."""
        if not self.runs:
            return "0/0"
        low, high = self.interval
        return f"{self.right}/{self.runs} {self.share:.0%} ({100 * low:.0f}–{100 * high:.0f})"


def count(rows: Sequence[Row], passes: Passes) -> dict[Class, Count]:
    """What a criterion gets right, by class: a good run is to pass, any other to be refused."""
    found: dict[Class, Count] = {}
    for name in CLASSES:
        verdicts = [passes(row) for row in rows if class_of(row) == name]
        right = sum(verdicts) if name == "good" else len(verdicts) - sum(verdicts)
        found[name] = Count(right, len(verdicts))
    return found


def wrong(rows: Sequence[Row], passes: Passes) -> list[Row]:
    """The runs that a criterion gets wrong."""
    return [row for row in rows if passes(row) != (class_of(row) == "good")]


def lines(counts: Mapping[str, Mapping[Class, Count]]) -> Iterator[str]:
    """The table in Markdown: a row for each criterion."""
    yield "| criterion | word salad refused | degraded refused | good passed |"
    yield "|---|---:|---:|---:|"
    for name, found in counts.items():
        yield f"| {name} | {found['word salad']} | {found['degraded']} | {found['good']} |"


def missed(counts: Mapping[Class, Count]) -> list[str]:
    """The targets that are not met, in words."""
    return [
        f"{name}: {found} right, target {TARGETS[name]:.0%}"
        for name, found in counts.items()
        if found.runs and found.share < TARGETS[name]
    ]
