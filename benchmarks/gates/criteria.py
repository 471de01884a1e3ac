"""What would refuse a run: other criteria than the gates, each gate alone, all of them; and bounds chosen on rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from alignment.config import GatesConfig
from benchmarks.gates.rows import Row
from benchmarks.gates.truth import class_of

Passes: TypeAlias = Callable[[Row], bool]
Bounds: TypeAlias = Mapping[str, float]
"""Bounds by their fields of `gates`."""

ALL = "all gates"

GATE = "gate."
"""Stands before a gate's name in the name of the figure that the gate reads."""


@dataclass(frozen=True)
class Bound:
    """A bound of a gate, by the field of the configuration that has it; an upper one refuses what exceeds it."""

    field: str
    gate: str
    upper: bool
    strict: bool = False

    def keeps(self, value: float, bound: float) -> bool:
        """Whether a value is within; one that is not a number is not."""
        if self.strict:
            return value < bound if self.upper else value > bound
        return value <= bound if self.upper else value >= bound


BOUNDS = (
    Bound("min_gain", "reward_gain", upper=False, strict=True),
    Bound("min_win_rate", "win_rate", upper=False),
    Bound("min_perplexity_ratio", "perplexity_ratio", upper=False),
    Bound("max_perplexity_ratio", "perplexity_ratio", upper=True),
    Bound("max_kl_per_token", "kl_per_token", upper=True),
    Bound("min_reward_sd_ratio", "reward_sd_ratio", upper=False),
    Bound("max_entropy_change", "entropy_change", upper=True),
)
"""Every bound that these runs are judged by; not that of the gate `grammatical_drop`, which reads the truth itself."""

CHOSEN = ("max_perplexity_ratio", "max_kl_per_token", "min_reward_sd_ratio", "max_entropy_change")
"""The bounds that are chosen on runs; the others say what counts as a gain, or bound what no run here does."""


def passes(bounds: Bounds, gates: Sequence[str], row: Row) -> bool:
    """Whether a run passes these gates."""
    return all(bound.keeps(row.get(GATE + bound.gate), bounds[bound.field]) for bound in BOUNDS if bound.gate in gates)


def criteria(bounds: Bounds) -> dict[str, Passes]:
    """Every criterion by its name: what other people go by, each gate alone, and all gates."""
    gates = dict.fromkeys(bound.gate for bound in BOUNDS)
    return {
        "reward and entropy rose (notebook)": lambda row: row.get("reward_rise") > 0 and row.get("entropy_rise") > 0,
        "reward rose": lambda row: row.get("reward_rise") > 0,
        "gold judge: its gain is no chance": lambda row: row.get("gold_gain_low") > 0,
        **{f"gate {gate} alone": partial(passes, bounds, (gate,)) for gate in gates},
        ALL: partial(passes, bounds, tuple(gates)),
    }


def todays() -> dict[str, float]:
    """The configuration's bounds."""
    return {bound.field: getattr(GatesConfig(), bound.field) for bound in BOUNDS}


@dataclass(frozen=True)
class Choice:
    """A bound that refuses no good run: `worst_good` is the outermost good value, `next_bad` the first bad one beyond.

    `refused` of the `bad` runs are beyond it. Without any there is no `next_bad`.
    """

    bound: float
    worst_good: float
    next_bad: float | None
    refused: int
    bad: int


def choose(bound: Bound, rows: Sequence[Row], today: float) -> Choice:
    """The bound that refuses no good run, and as many others as it can: today's, where it does so too.

    Else it lies half-way between the outermost good run and the first bad one beyond; without such a run, today's
    where no good run breaks it, else the outermost good value. Raises ValueError without a good run.
    """
    sign = 1.0 if bound.upper else -1.0
    good = [sign * row.get(GATE + bound.gate) for row in rows if class_of(row) == "good"]
    bad = [sign * row.get(GATE + bound.gate) for row in rows if class_of(row) != "good"]
    if not good:
        raise ValueError(f"{bound.field}: none of {len(rows)} runs is good, so nothing says what has to pass")
    worst = max(good)
    beyond = sorted(value for value in bad if value > worst)
    ours = sign * today
    as_good = worst <= ours and (not beyond or ours < beyond[0])
    found = ours if as_good else (worst + beyond[0]) / 2 if beyond else worst
    return Choice(sign * found, sign * worst, sign * beyond[0] if beyond else None, len(beyond), len(bad))


def chosen(rows: Sequence[Row], today: Bounds) -> dict[str, Choice]:
    """The chosen bounds, by their fields."""
    return {bound.field: choose(bound, rows, today[bound.field]) for bound in BOUNDS if bound.field in CHOSEN}
