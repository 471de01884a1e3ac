"""The few figures that a verdict is told by, in the same words and order wherever there is room for no more."""

from collections.abc import Callable
from dataclasses import dataclass

from alignment.judging.formats import percent, plain, signed, times
from alignment.judging.report import EvalReport

Interval = tuple[float, float]
Written = Callable[[float], str]


@dataclass(frozen=True)
class Headline:
    """One figure of the aligned model against the base."""

    name: str
    """As machines spell it: MLflow's metric is `Result/<name>`."""
    title: str
    value: float
    interval: Interval | None
    written: Written

    @property
    def short(self) -> str:
        """The value alone, as in +1.01 or 95.7%."""
        return self.written(self.value)

    @property
    def text(self) -> str:
        """The value, with its interval where it has one, as in +1.01 (+0.93 to +1.09)."""
        if self.interval is None:
            return self.short
        return f"{self.short} ({' to '.join(map(self.written, self.interval))})"


FIGURES: tuple[tuple[str, str, Written], ...] = (
    ("reward_gain", "reward gain", signed),
    ("win_rate", "prompts won", percent),
    ("perplexity_ratio", "perplexity, ratio to the base's", times),
    ("kl_per_token", "KL from the base, nats per token", lambda value: plain(value, 3)),
    ("length_change", "length, change in tokens", lambda value: signed(value, 1)),
)
"""Figures of `EvalReport.delta`, each with its title and how it is written."""
OF_PAIRS: tuple[tuple[str, str, Written], ...] = (
    ("preference_accuracy", "accuracy on held-out pairs", percent),
    ("preference_margin", "margin of held-out pairs, nats", signed),
)
"""Figures of `EvalReport.preferences`, whose fields are named without `preference_`."""
WRITTEN: dict[str, Written] = {name: written for name, _, written in (*OF_PAIRS, *FIGURES)}
"""How each headline is written, by its name."""
METRICS: dict[str, str] = {name: f"preferences/{name.removeprefix('preference_')}" for name, *_ in OF_PAIRS} | {
    name: f"delta/{name}" for name, *_ in FIGURES
}
"""The metric of a run's record that holds each headline with all its digits, by the headline's name."""


def headlines(report: EvalReport) -> tuple[Headline, ...]:
    """At most five figures, those that apply: without a reward, how held-out pairs are ranked comes first."""
    found = [
        Headline(name, title, value, report.delta.interval(name), written)
        for name, title, written in FIGURES
        if (value := report.delta.get(name)) is not None
    ]
    if report.preferences is not None and not report.has_reward:
        pairs = report.preferences
        values = (pairs.accuracy, pairs.accuracy_ci), (pairs.margin, pairs.margin_ci)
        of_pairs = zip(OF_PAIRS, values, strict=True)
        found = [*(Headline(name, title, *value, written) for (name, title, written), value in of_pairs), *found]
    return tuple(found)
