"""What stands in each part of a run's page, as plain rows: headlines, gates, curves, pairs, samples and settings."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from alignment.judging import charts
from alignment.judging.charts import Histogram, LineChart, Scale
from alignment.judging.differences import Difference, Piece, differences
from alignment.judging.formats import NONE, signed
from alignment.judging.headline import Headline, headlines
from alignment.judging.plots import PANELS
from alignment.judging.report import EvalReport, GateResult, Judgement, SampleRow
from alignment.kinds import GATES
from alignment.stages.store import StageRef

if TYPE_CHECKING:
    from alignment.judging.evaluated import Evaluated

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""The (step, value) points of each metric of the training."""

NEUTRAL: Mapping[str, float] = {
    "reward_gain": 0.0,
    "win_rate": 0.5,
    "perplexity_ratio": 1.0,
    "kl_per_token": 0.0,
    "length_change": 0.0,
    "preference_accuracy": 0.5,
    "preference_margin": 0.0,
}
"""What each headline is of a model that is the base itself."""
LOOKS = {"chosen": "aligned", "rejected": "base", "margin": "warn"}
MAX_TEXT = 4_000  # characters of a sample text
SHORT = 12  # characters of a digest that tell it apart


@dataclass(frozen=True)
class Run:
    """A judged run as its page tells it; what its record lacks is empty."""

    id: str
    name: str
    report: EvalReport
    judgement: Judgement
    model: str = ""
    """What became of it in the registry, in words."""
    started: datetime | None = None
    seconds: float | None = None
    samples: Sequence[SampleRow] = ()
    curves: Curves = field(default_factory=dict)
    stages: Mapping[str, StageRef] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[Mapping[str, Any]] = ()
    drawn: Mapping[str, Any] = field(default_factory=dict)
    """Bins of `rewards`, `gaps` and `lengths` as `charts.counted` makes them; how many pairs were quarantined for what,
    `broken`; and the versions of `libraries`."""
    links: Sequence[tuple[str, str]] = ()
    """Names and addresses of what has more about it."""
    evaluated: "Evaluated | None" = None
    """Every sample of its evaluation, for a comparison; None where it was not asked for, or recorded none."""

    @property
    def title(self) -> str:
        """What tells it from other runs: the version that it became, or its name and how its id begins."""
        return self.model or f"{self.name}, run {self.id[:8]}"


@dataclass(frozen=True)
class Tile:
    """A headline with its scale, and its gate where one judges the same figure."""

    headline: Headline
    scale: Scale
    gate: GateResult | None


@dataclass(frozen=True)
class GateRow:
    """A gate as a row: `scale` is None where it was not applied."""

    name: str
    label: str
    value: str
    bound: str
    verdict: str
    passed: bool | None
    why: str
    scale: Scale | None


@dataclass(frozen=True)
class Setting:
    """A field of the configuration; `default` is None where this release has no such field."""

    name: str
    value: str
    default: str | None

    @property
    def differs(self) -> bool:
        """Whether it is not as it is by default."""
        return self.value != self.default


@dataclass(frozen=True)
class Side:
    """One model's text for a prompt, in pieces by what the other side shares, and its score."""

    pieces: tuple[Piece, ...]
    left_out: int
    reward: str


@dataclass(frozen=True)
class Sample:
    """One prompt with the texts of both models, and the numbers that it is sorted by."""

    number: int
    prompt: str
    earlier: tuple[tuple[str, str], ...]
    """The turns of a chat before the last one: role and text."""
    base: Side
    aligned: Side
    gain: float | None
    length: int
    changed: float | None

    @property
    def gained(self) -> str:
        """The gain as it is written; empty without one."""
        return "" if self.gain is None else signed(self.gain)


def tiles(run: Run, beside: Run | None = None) -> list[Tile]:
    """The headlines of a run; each scale has room for those of the run `beside` it."""
    others = {each.name: each for each in headlines(beside.report)} if beside else {}
    gates = {gate.name: gate for gate in run.judgement.gates}
    found = []
    for each in headlines(run.report):
        other, gate = others.get(each.name), gates.get(each.name)
        found.append(
            Tile(
                each,
                charts.scale(
                    each.value,
                    interval=each.interval,
                    neutral=NEUTRAL.get(each.name),
                    low=gate.low if gate else None,
                    high=gate.high if gate else None,
                    beside=() if other is None else (other.value, *(other.interval or ())),
                ),
                gate,
            )
        )
    return found


def gate_rows(judgement: Judgement) -> list[GateRow]:
    """Every gate, the refused ones first, then those that passed, then those that could not be applied."""
    rows = [
        GateRow(
            gate.name,
            GATES.get(gate.name).label if gate.name in GATES.names() else gate.name.replace("_", " "),
            f"{gate.value:.4g}",
            bound(gate),
            "passed" if gate.passed else "refused",
            gate.passed,
            gate.why,
            charts.scale(
                gate.value,
                low=gate.low,
                high=gate.high,
                beside=() if gate.low is not None and gate.high is not None else (0.0,),
            ),
        )
        for gate in sorted(judgement.gates, key=lambda gate: gate.passed)
    ]
    return rows + [
        GateRow(name, name.replace("_", " "), NONE, NONE, "not applied", None, why, None)
        for name, why in judgement.not_applied.items()
    ]


def bound(gate: GateResult) -> str:
    """A bound as people write it."""
    return gate.bound.replace(">=", "≥").replace("<=", "≤").replace("..", " to ")


def curve_charts(curves: Curves) -> list[LineChart]:
    """A chart for each group of metrics that the training recorded."""
    found = [
        charts.line_chart(
            title,
            unit,
            {name: (LOOKS.get(name, "aligned"), curves[key]) for key, name in lines.items() if key in curves},
        )
        for title, unit, lines in PANELS
    ]
    return [chart for chart in found if chart is not None]


def curves_beside(one: Curves, two: Curves) -> list[LineChart]:
    """A chart for each metric that both trainings recorded, the first run's line and the second's in it."""
    found = []
    for title, unit, lines in PANELS:
        for key, name in lines.items():
            if key in one and key in two and key != "learning_rate":
                told = title if len(lines) == 1 else f"{title}: {name}"
                found.append(charts.line_chart(told, unit, {"A": ("one", one[key]), "B": ("two", two[key])}))
    return [chart for chart in found if chart is not None]


def histograms(run: Run) -> list[Histogram]:
    """What was counted while the run went on: rewards of both models, score gaps of the pairs, and their lengths."""
    gap = run.settings.get("validation.min_gap")
    winners = run.report.winners_mean
    wanted: tuple[tuple[str, str, str, Mapping[str, str], list[tuple[float, str, str]]], ...] = (
        (
            "rewards",
            "Reward of fresh samples",
            "reward",
            {"base": "base", "aligned": "aligned"},
            [] if winners is None else [(winners, f"biased baseline: mean of the winners {signed(winners)}", "warn")],
        ),
        (
            "gaps",
            "Score gap of accepted pairs",
            "chosen score − rejected score",
            {"pairs": "aligned"},
            [(float(gap), f"smallest accepted gap {gap:g}", "warn")] if isinstance(gap, int | float) else [],
        ),
        (
            "lengths",
            "Length of accepted pairs",
            "tokens",
            {"chosen": "aligned", "rejected": "base"},
            [],
        ),
    )
    found = []
    for name, title, unit, looks, marks in wanted:
        if held := run.drawn.get(name):
            means = held.get("means", {})
            series = {
                told: (look, held["counts"][each])
                for each, look in looks.items()
                if each in held["counts"]
                for told in (f"{each}, mean {means[each]:.3g}" if each in means else each,)
            }
            found.append(charts.histogram(title, unit, held["edges"], series, marks))
    return [chart for chart in found if chart is not None]


def settings(run: Run) -> list[Setting]:
    """Every field of the configuration that the run was given, beside its default."""
    return [
        Setting(name, written(value), written(run.defaults[name]) if name in run.defaults else None)
        for name, value in run.settings.items()
    ]


def settings_beside(one: Run, two: Run) -> list[tuple[str, str, str]]:
    """The fields that two runs were given differently: name and both values."""
    names = dict.fromkeys([*one.settings, *two.settings])
    values = [{name: written(value) for name, value in run.settings.items()} for run in (one, two)]
    rows = [(name, values[0].get(name, NONE), values[1].get(name, NONE)) for name in names]
    return [row for row in rows if row[1] != row[2]]


def written(value: Any) -> str:
    """A field's value as JSON has it, a text without its quotes."""
    if isinstance(value, str):
        return value or "(empty)"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, default=str)


def samples(rows: Sequence[SampleRow]) -> list[Sample]:
    """Each prompt with both texts, in the order of the record."""
    return [_sample(number, row) for number, row in enumerate(rows, start=1)]


def texts(row: SampleRow) -> tuple[str, str, str]:
    """A prompt, or the last turn of a chat, and what either model wrote after it."""
    prompt, *both = row.shown
    base, aligned = both if row.messages else [text.removeprefix(prompt) for text in both]
    return prompt, base.lstrip(), aligned.lstrip()


def side(text: str, score: float | None, pieces: Iterable[Piece] | None = None) -> Side:
    """One text, cut where it is very long."""
    left, kept = MAX_TEXT, []
    for part, same in pieces if pieces is not None else [(text, True)]:
        if left > 0:
            kept.append((part[:left], same))
        left -= len(part)
    return Side(tuple(kept), max(0, -left), "" if score is None else _score(score))


def _score(score: float) -> str:
    return signed(score) if math.isfinite(score) else "not finite"


def earlier_turns(row: SampleRow) -> tuple[tuple[str, str], ...]:
    """The turns of a chat before the last one."""
    turns = json.loads(row.messages)[:-1] if row.messages else []
    return tuple((str(turn.get("role", "")), str(turn.get("content") or "")[:MAX_TEXT]) for turn in turns)


def _sample(number: int, row: SampleRow) -> Sample:
    prompt, base, aligned = texts(row)
    found: Difference = differences(base, aligned)
    return Sample(
        number,
        prompt[:MAX_TEXT],
        earlier_turns(row),
        side(base, row.base_reward, found.before),
        side(aligned, row.aligned_reward, found.after),
        gain_of(row),
        max(len(base), len(aligned)),
        found.changed,
    )


def gain_of(row: SampleRow) -> float | None:
    """How much more the aligned model's text scored; None where one of the two has no finite score."""
    return change(row.base_reward, row.aligned_reward)


def change(before: float | None, after: float | None) -> float | None:
    """How much more the second score is; None where one of the two is none, or not finite."""
    if before is None or after is None:
        return None
    more = after - before
    return more if math.isfinite(more) else None


def identity(row: SampleRow) -> tuple[Any, ...]:
    """What the rows of two records share that are of the same prompt."""
    return (row.prompt_ids,) if row.prompt_ids else (row.prompt, row.messages)
