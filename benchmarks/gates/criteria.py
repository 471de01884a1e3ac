"""What would refuse a run: other criteria than the gates, each gate alone, all of them; and bounds chosen on rows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from alignment.config import GatesConfig
from benchmarks.gates.rows import Row
from benchmarks.gates.truth import CLASSES, class_of

SPARED = 0.05
"""What a bound may get wrong, so that it does not hang on a single run."""

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
"""Every bound that these runs are judged by."""

READ_THE_TRUTH = ("grammatical_drop", "seen_bigrams_drop", "realism_rise")
"""Gates that are left out, because they read what the classes are made of."""

FLUENCY = ("perplexity_ratio", "kl_per_token")

CHOSEN = ("max_perplexity_ratio", "max_kl_per_token")
"""The bounds that are chosen, in this order: those of the gates that judge how fluent a text is, as the classes do.

The others say what counts as a gain, or how alike texts may become, of which the classes know nothing.
"""


def keeps(bound: Bound, value: float, row: Row) -> bool:
    """Whether what the gate read of a run is within a value of the bound."""
    return bound.keeps(row.get(GATE + bound.gate), value)


def passes(bounds: Bounds, gates: Sequence[str], row: Row) -> bool:
    """Whether a run passes these gates."""
    return all(keeps(bound, bounds[bound.field], row) for bound in BOUNDS if bound.gate in gates)


def criteria(bounds: Bounds) -> dict[str, Passes]:
    """Every criterion by its name: what other people go by, each gate alone, and all gates."""
    gates = dict.fromkeys(bound.gate for bound in BOUNDS)
    return {
        "reward and entropy rose (notebook)": lambda row: row.get("reward_rise") > 0 and row.get("entropy_rise") > 0,
        "reward rose": lambda row: row.get("reward_rise") > 0,
        "gold judge: its gain is no chance": lambda row: row.get("gold_gain_low") > 0,
        **{f"gate {gate} alone": partial(passes, bounds, (gate,)) for gate in gates},
        "both gates of fluency": partial(passes, bounds, FLUENCY),
        ALL: partial(passes, bounds, tuple(gates)),
    }


def todays() -> dict[str, float]:
    """The configuration's bounds."""
    return {bound.field: getattr(GatesConfig(), bound.field) for bound in BOUNDS}


@dataclass(frozen=True)
class Choice:
    """A bound, and the gap that it stands in: the last run within, and the first one beyond, None where there is none.

    Beyond are `refused` of `bad` runs, and `good_refused` good ones.
    """

    bound: float
    last_within: float
    first_beyond: float | None
    refused: int
    bad: int
    good_refused: int


def choose(bound: Bound, rows: Sequence[Row], today: float) -> Choice:
    """Today's bound where it tells the runs apart as well as any, else the middle of the widest gap that does.

    One good run in twenty may be refused, and one degraded in twenty may pass that the bound could refuse; no word
    salad. Raises ValueError without a good run.
    """
    sign = 1.0 if bound.upper else -1.0
    by_class = {
        name: sorted(sign * row.get(GATE + bound.gate) for row in rows if class_of(row) == name) for name in CLASSES
    }
    if not by_class["good"]:
        raise ValueError(f"{bound.field}: none of {len(rows)} runs is good, so nothing says what has to pass")
    values = sorted(set().union(*by_class.values()))
    gaps = [
        (low, high, {name: sum(value > low for value in found) for name, found in by_class.items()})
        for low, high in zip(values, [*values[1:], math.inf], strict=True)
    ]
    gaps = [gap for gap in gaps if gap[2]["good"] <= SPARED * len(by_class["good"])]
    salad, degraded = (max(gap[2][name] for gap in gaps) for name in ("word salad", "degraded"))
    degraded -= int(SPARED * len(by_class["degraded"]))
    gaps = [gap for gap in gaps if gap[2]["word salad"] == salad and gap[2]["degraded"] >= degraded]
    ours = [gap for gap in gaps if gap[0] <= sign * today < gap[1]]
    low, high, beyond = ours[0] if ours else max(gaps, key=lambda gap: (math.isfinite(gap[1]), gap[1] - gap[0]))
    found = sign * today if ours else between(low, high) if math.isfinite(high) else low
    return Choice(
        sign * found,
        sign * low,
        sign * high if math.isfinite(high) else None,
        beyond["degraded"] + beyond["word salad"],
        len(rows) - len(by_class["good"]),
        beyond["good"],
    )


def between(low: float, high: float) -> float:
    """The middle of two values, with no more decimals than it needs to lie between them; two at least."""
    middle = (low + high) / 2
    return next((found for digits in range(2, 9) if low < (found := round(middle, digits)) < high), middle)


def chosen(rows: Sequence[Row], today: Bounds) -> dict[str, Choice]:
    """The chosen bounds, by their fields, one after the other: each is to refuse what those before it let pass.

    Where they let nothing bad pass, it is chosen as if it stood alone.
    """
    left, found = list(rows), {}
    for name in CHOSEN:
        bound = next(bound for bound in BOUNDS if bound.field == name)
        choice = choose(bound, left if any(class_of(row) != "good" for row in left) else rows, today[name])
        left = [row for row in left if class_of(row) == "good" or keeps(bound, choice.bound, row)]
        found[name] = choice
    return found
