"""The gates between an evaluation and the registry: each is one function under one decorator.

A gate reads one value from the report and its bounds from the configuration; `judge` decides. Reward and win rate are
needed and never sufficient, because word salad has the highest of both: perplexity under the base and KL see it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from alignment.config import GatesConfig
from alignment.judging.report import EvalReport, GateResult, Judgement, MissingFigureError
from alignment.kinds import GATES

Reading: TypeAlias = tuple[
    float, float | None, float | None, str
]  # value, low, high (None: open), what a failure means
Read: TypeAlias = Callable[[EvalReport, GatesConfig], Reading | str | None]
"""None: the gate has nothing to judge in this report; a text: it would have, and says why it cannot."""

NO_REWARD = "no reward"


@dataclass(frozen=True)
class Gate:
    """A registered gate; `label` names its value in a sentence."""

    name: str
    label: str
    read: Read
    strict: bool


def gate(name: str, label: str, *, strict: bool = False) -> Callable[[Read], Read]:
    """Register a gate: the bounds belong to it, unless it is strict: then a value on a bound fails.

    Gates judge in the order of their definition, those of other packages last. A gate of another package reads bounds
    of its own from its own group of fields: `config.<name>`. A figure that it names as an attribute has to be in the
    report, or the gate fails; it may ask by `get`, and not apply (None) to a report from before the metric was there.
    """

    def register(read: Read) -> Read:
        GATES.register(name, Gate(name, label, read, strict))
        return read

    return register


@gate("reward_gain", "reward gain's lower bound", strict=True)
def _reward_gain(report: EvalReport, config: GatesConfig) -> Reading | str:
    if not report.has_reward:
        return NO_REWARD
    return report.delta.reward_gain_ci[0], config.min_gain, None, "the gain may be chance"


@gate("win_rate", "win rate")
def _win_rate(report: EvalReport, config: GatesConfig) -> Reading | str:
    if not report.has_reward:
        return NO_REWARD
    return report.delta.win_rate, config.min_win_rate, None, "too few prompts got a better text"


@gate("unscored_rise", "rise of the fraction of samples without a score")
def _unscored_rise(report: EvalReport, config: GatesConfig) -> Reading | None:
    if not report.has_reward or not (report.unscored_base or report.unscored_aligned):
        return None
    rise = (report.unscored_aligned - report.unscored_base) / (report.prompts * report.samples_per_prompt)
    why = "texts without a score are left out of the gain, and a bad text may be one that cannot be scored"
    return rise, None, config.max_unscored_rise, why


@gate("preference_accuracy", "lower bound of the accuracy on held-out pairs", strict=True)
def _preference_accuracy(report: EvalReport, config: GatesConfig) -> Reading | None:
    if report.preferences is None:
        return None
    why = "on pairs that it was not trained on, the model may prefer the rejected side as often as the base"
    return report.preferences.accuracy_ci[0], config.min_preference_accuracy, None, why


@gate("improvement", "number of measures of improvement")
def _improvement(report: EvalReport, _: GatesConfig) -> Reading | None:
    if report.has_reward or report.preferences is not None:
        return None
    return 0.0, 1.0, None, "neither a reward nor held-out pairs say whether the model became better"


@gate("perplexity_ratio", "perplexity ratio")
def _perplexity_ratio(report: EvalReport, config: GatesConfig) -> Reading:
    ratio, low, high = report.delta.perplexity_ratio, config.min_perplexity_ratio, config.max_perplexity_ratio
    if ratio < low:
        return ratio, low, high, "to the base the text is too easy to foresee, as stock phrases are"
    return ratio, low, high, "the text is less fluent than the base's, whatever reward it earns"


@gate("kl_per_token", "KL per token")
def _kl_per_token(report: EvalReport, config: GatesConfig) -> Reading:
    why = "the policy went further from the base than its reward model can be trusted"
    return report.delta.kl_per_token, None, config.max_kl_per_token, why


@gate("reward_sd_ratio", "reward SD ratio")
def _reward_sd_ratio(report: EvalReport, config: GatesConfig) -> Reading | str:
    if not report.has_reward:
        return NO_REWARD
    return report.delta.reward_sd_ratio, config.min_reward_sd_ratio, None, "the texts have become alike"


@gate("entropy_change", "relative move of the token entropy")
def _entropy_change(report: EvalReport, config: GatesConfig) -> Reading:
    base = report.base.entropy
    move = abs(report.delta.entropy_change) / base if base else math.nan
    return move, None, config.max_entropy_change, "the vocabulary in use shrank or scattered"


@gate("grammatical_drop", "drop of grammatical sentences")
def _grammatical_drop(report: EvalReport, config: GatesConfig) -> Reading | None:
    before, after = report.base.get("grammatical"), report.aligned.get("grammatical")
    if before is None or after is None:
        return None
    return before - after, None, config.max_grammar_drop, "the text loses its grammar"


@gate("seen_bigrams_drop", "drop of the share of word pairs that real texts have")
def _seen_bigrams_drop(report: EvalReport, config: GatesConfig) -> Reading | None:
    before, after = report.base.get("seen_bigrams"), report.aligned.get("seen_bigrams")
    if before is None or after is None:
        return None
    why = "words stand beside each other as they do not in real texts"
    return before - after, None, config.max_seen_bigrams_drop, why


@gate("realism_rise", "rise of the AUC by which texts are told from real ones")
def _realism_rise(report: EvalReport, config: GatesConfig) -> Reading | None:
    before, after = report.base.get("realism_auc"), report.aligned.get("realism_auc")
    if before is None or after is None:
        return None
    return after - before, None, config.max_realism_rise, "the texts are easier to tell from real ones than the base's"


@gate("task_drop", "largest drop on a task")
def _task_drop(report: EvalReport, config: GatesConfig) -> Reading | None:
    if not report.tasks:
        return None
    worst = max(report.tasks, key=lambda each: each.drop)
    why = f"it lost what the base can: {worst.metric} on {worst.task} fell from {worst.base:.3f} to {worst.aligned:.3f}"
    return worst.drop, None, config.max_task_drop, why


@gate("anchor_kl_per_token", "KL per token from the anchor")
def _anchor_kl_per_token(report: EvalReport, config: GatesConfig) -> Reading | None:
    if report.drift is None:
        return None
    why = "over all rounds the policy went too far from the first base"
    return report.drift.kl_per_token, None, config.max_anchor_kl_per_token, why


@gate("anchor_perplexity_ratio", "perplexity ratio under the anchor")
def _anchor_perplexity_ratio(report: EvalReport, config: GatesConfig) -> Reading | None:
    if report.drift is None:
        return None
    ratio, low, high = report.drift.perplexity_ratio, config.min_perplexity_ratio, config.max_anchor_perplexity_ratio
    if ratio < low:
        return ratio, low, high, "over all rounds the text became too easy to foresee, as stock phrases are"
    return ratio, low, high, "over all rounds the text became less fluent than the first base's"


@gate("anchor_reward_sd_ratio", "reward SD over the anchor's")
def _anchor_reward_sd_ratio(report: EvalReport, config: GatesConfig) -> Reading | str | None:
    if report.drift is None:
        return None
    if not report.has_reward:
        return NO_REWARD
    return (
        report.drift.reward_sd_ratio,
        config.min_anchor_reward_sd_ratio,
        None,
        "over all rounds the texts have become alike",
    )


def judge(report: EvalReport, config: GatesConfig) -> Judgement:
    """Every gate that applies, in order; the verdict is a pass only if all of them pass.

    A gate whose figure is missing fails: nobody knows whether it would pass. What could not be applied is told, and
    without any measure of improvement nothing passes.
    """
    results: list[GateResult] = []
    not_applied: dict[str, str] = {}
    for entry in GATES.all().values():
        try:
            reading = entry.read(report, config)
        except MissingFigureError as missing:
            reading = math.nan, None, None, f"the report has no {missing}"
        if isinstance(reading, str):
            not_applied[entry.name] = reading
        elif reading is not None:
            results.append(_result(entry, *reading))
    failures = [result for result in results if not result.passed]
    return Judgement(
        verdict="fail" if failures else "pass",
        sentence=_refusal(failures) if failures else _approval(report),
        gates=tuple(results),
        not_applied=not_applied,
    )


def _result(entry: Gate, value: float, low: float | None, high: float | None, why: str) -> GateResult:
    return GateResult(
        name=entry.name,
        value=value,
        low=low,
        high=high,
        strict=entry.strict,
        passed=_within(value, low, high, entry.strict),
        why=why,
    )


def _within(value: float, low: float | None, high: float | None, strict: bool) -> bool:
    """False for a value that is not finite, whatever the bounds."""
    if not math.isfinite(value):
        return False
    if strict:
        return (low is None or value > low) and (high is None or value < high)
    return (low is None or value >= low) and (high is None or value <= high)


def _approval(report: EvalReport) -> str:
    delta = report.delta
    level = f"{100 * report.confidence:g}% CI"
    better = []
    if report.has_reward:
        low, high = delta.reward_gain_ci
        better.append(f"reward {delta.reward_gain:+.2f} ({level} {low:.2f} to {high:.2f}) on held-out prompts")
    if report.preferences is not None:
        low, high = (100 * end for end in report.preferences.accuracy_ci)
        better.append(
            f"{100 * report.preferences.accuracy:.1f}% of {report.preferences.pairs:,} held-out pairs ranked as they "
            f"were given ({level} {low:.1f} to {high:.1f})"
        )
    left_out = ""
    if report.has_reward and (report.unscored_base or report.unscored_aligned):
        left_out = (
            f" Without a score, and so left out: {report.unscored_base:,} of the base's samples, "
            f"{report.unscored_aligned:,} of its own."
        )
    unjudged = (
        left_out if report.has_reward else " No reward is configured: reward gain, win rate and SD were not judged."
    )
    return (
        f"May be registered: {', '.join(better)}, and the text stays as fluent as the base "
        f"(perplexity ratio {delta.perplexity_ratio:.2f}, KL {delta.kl_per_token:.2f} nats per token).{unjudged}"
    )


def _refusal(failures: list[GateResult]) -> str:
    *others, last = map(clause, failures)
    return f"Not registered: {', '.join(others)}{', and ' if others else ''}{last}."


def clause(failure: GateResult) -> str:
    """What a gate refused: its value and bound in words, and what that means, without a full stop."""
    return f"{GATES.get(failure.name).label} {_breach(failure)} ({failure.why})"


def _breach(result: GateResult) -> str:
    if not math.isfinite(result.value):
        return f"is not a finite number ({result.value:g})"
    value = _figure(result)
    if result.low is not None and result.high is not None:
        return f"{value} is outside {result.bound}"
    if result.low is None:
        return f"{value} exceeds {result.high:g}"
    return f"{value} is not above {result.low:g}" if result.strict else f"{value} is below {result.low:g}"


def _figure(result: GateResult) -> str:
    """The value with two decimals, or with as many more as show that it breaks the bound: never `0.20 exceeds 0.2`."""
    if abs(result.value) >= 1e6:
        return f"{result.value:.3g}"
    for decimals in range(2, 10):
        figure = f"{result.value:.{decimals}f}"
        rounded_away = float(figure) == 0 and result.value != 0
        if not rounded_away and not _within(float(figure), result.low, result.high, result.strict):
            return figure
    return repr(result.value)
