"""The aligned model against the base on the same held-out prompts: from per-sample columns to one EvalReport."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from alignment.config import EvaluationConfig
from alignment.errors import ScoreError
from alignment.judging.measured import Measured
from alignment.judging.metric import Both, metrics, ratio
from alignment.judging.report import Delta, Drift, EvalReport, ModelMetrics, RewardResult

ANCHOR = "anchor_"  # how the names of metrics of the anchor begin, which the drift's figures leave out


class Computes(Protocol):
    """What computes a metric of columns; `alignment.judging.hf_metrics.all_metrics` gives one of each, by name."""

    def compute(self, **columns: Any) -> dict[str, float]:
        """The value under the metric's name, from whole columns of samples."""


Metrics = Mapping[str, Computes]


def measure(measured: Measured, computes: Metrics) -> ModelMetrics:
    """One model's figures: every metric of one model that applies."""
    return ModelMetrics(**_figures("model", measured, computes))


def compare(
    base: Measured,
    aligned: Measured,
    *,
    metrics: Metrics,
    winners_mean: float | None,
    config: EvaluationConfig,
    seed: int,
) -> EvalReport:
    """Fill the report: means over samples, gain and win rate paired by prompt with a bootstrap over prompts.

    Rewards are compared on the prompts that have a sample with a reward on both sides; where there is no reward at all,
    no figure of it is there. `winners_mean` is only carried along. The order of the samples does not matter.
    Raises ValueError unless both sides have the same prompts with the same number of samples each, and both or neither
    were judged, and ScoreError where rewards are too few to be compared.
    """
    prompts, samples = _design(base, aligned)
    if base.judged.keys() != aligned.judged.keys():
        raise ValueError("compare: one model only was judged, or by another judge; judge both, or neither")
    both = Both(base, aligned, config, seed)
    if (base.scores.size or aligned.scores.size) and len(both.prompts) < 2:
        raise _too_few("reward", both)
    before, after = measure(base, metrics), measure(aligned, metrics)
    return EvalReport(
        prompts=prompts,
        samples_per_prompt=samples,
        compared=len(both.prompts),
        unscored_base=base.unscored,
        unscored_aligned=aligned.unscored,
        confidence=config.confidence,
        base=before,
        aligned=after,
        delta=Delta(
            **_changes(before, after),
            **_figures("aligned", aligned, metrics),
            **_of_both(both),
        ),
        winners_mean=winners_mean,
    )


def reward_result(
    name: str,
    base: Measured,
    aligned: Measured,
    scores: tuple[Sequence[float | None], Sequence[float | None]],
    *,
    weight: float | None = None,
    config: EvaluationConfig,
    seed: int,
) -> RewardResult:
    """What one of several rewards says of the same samples; `scores` are those of the base's and the aligned model's.

    Raises ScoreError where they are too few to be compared.
    """
    before, after = (np.array(found, dtype=np.float64) for found in scores)  # nan for None
    both = Both(
        replace(base, rewards=before, scored=~np.isnan(before)),
        replace(aligned, rewards=after, scored=~np.isnan(after)),
        config,
        seed,
    )
    if len(both.prompts) < 2:
        raise _too_few(name, both)
    figures = _of_both(both)
    return RewardResult(
        name=name,
        weight=weight,
        prompts=len(both.prompts),
        base_mean=float(np.mean(both.base.scores)),
        aligned_mean=float(np.mean(both.aligned.scores)),
        gain=figures["reward_gain"],
        gain_ci=figures["reward_gain_ci"],
        unscored_base=both.base.unscored,
        unscored_aligned=both.aligned.unscored,
    )


def _too_few(name: str, both: Both) -> ScoreError:
    return ScoreError(
        f"{name}: {len(both.prompts)} of the held-out prompts have a score for a sample of both models "
        f"({both.base.unscored + both.aligned.unscored} samples have none), and two are needed; find out why it gives "
        "none, or raise prompts.eval_count"
    )


def drift(anchor: Measured, base: Measured, aligned: Measured) -> Drift:
    """How far two models are from the anchor; in all three, `base_logprobs` are log-probs under the anchor.

    Raises ValueError unless all three have the same prompts with the same number of samples each.
    """
    _design(anchor, base)
    _design(anchor, aligned)
    found: dict[str, float | None] = {}
    if anchor.scores.size:
        found["anchor_reward_mean"] = float(np.mean(anchor.scores))
    for metric in metrics("anchor"):
        name = metric.name.removeprefix(ANCHOR)
        found |= {f"base_{name}": metric.compute(anchor, base), name: metric.compute(anchor, aligned)}
    return Drift(**{name: value for name, value in found.items() if value is not None})


def _figures(of: Any, measured: Measured, computes: Metrics) -> dict[str, float]:
    found = {}
    for metric in metrics(of):
        columns = measured.columns(metric.inputs)
        if columns is not None:
            found[metric.name] = computes[metric.name].compute(**columns)[metric.name]
    return found


def _changes(before: ModelMetrics, after: ModelMetrics) -> dict[str, float]:
    found = {}
    for metric in metrics("model"):
        one, two = before.get(metric.name), after.get(metric.name)
        if metric.delta and one is not None and two is not None:
            found[metric.delta] = ratio(two, one) if metric.change == "ratio" else two - one
    return found


def _of_both(both: Both) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in metrics("both"):
        value = metric.compute(both)
        if isinstance(value, tuple):
            value, found[f"{metric.name}_ci"] = value
        if value is not None:
            found[metric.name] = value
    return found


def _design(base: Measured, aligned: Measured) -> tuple[int, int]:
    """The number of prompts and of samples per prompt, once both sides are known to share them."""
    (ids, counts), (aligned_ids, aligned_counts) = (
        np.unique(np.asarray(side.prompt_ids), return_counts=True) for side in (base, aligned)
    )
    one_sided = sorted(set(ids.tolist()) ^ set(aligned_ids.tolist()))
    if one_sided:
        raise ValueError(
            f"compare: {len(one_sided)} prompts were sampled from one model only, such as {one_sided[0]!r}; "
            "sample both models on the same prompts"
        )
    sizes = set(counts.tolist()) | set(aligned_counts.tolist())
    if len(sizes) > 1:
        raise ValueError(
            f"compare: prompts have {min(sizes)} to {max(sizes)} samples; sample each prompt equally often from both"
        )
    return ids.size, int(counts[0])
