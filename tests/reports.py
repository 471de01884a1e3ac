"""An evaluation's report for tests: one that passes every gate, from which each test changes what it is about."""

from collections.abc import Mapping
from typing import Any

from alignment.judging.report import Delta, Drift, EvalReport, ModelMetrics

MODEL: Mapping[str, Any] = {
    "reward_mean": -0.3,
    "reward_sd": 1.2,
    "entropy": 5.0,
    "perplexity": 12.0,
    "distinct_1": 0.1,
    "distinct_2": 0.4,
    "distinct_3": 0.7,
    "repetition": 0.02,
    "length": 40.0,
    "finished": 0.5,
}
"""The base's figures; the aligned model's are the same but for its reward."""

DELTA: Mapping[str, Any] = {
    "reward_gain": 1.5,
    "reward_gain_ci": (1.4, 1.6),
    "reward_gain_in_sd": 1.25,
    "reward_sd_ratio": 0.9,
    "win_rate": 0.93,
    "win_rate_ci": (0.9, 0.96),
    "perplexity_ratio": 1.08,
    "kl": 2.5,
    "kl_per_token": 0.05,
    "entropy_change": -0.1,
    "length_change": 3.0,
}

DRIFT: Mapping[str, Any] = {
    "base_kl_per_token": 0.1,
    "kl_per_token": 0.2,
    "base_perplexity_ratio": 1.0,
    "perplexity_ratio": 1.1,
    "anchor_reward_mean": -0.8,
    "base_reward_gain": 0.5,
    "reward_gain": 2.0,
    "base_reward_sd_ratio": 1.0,
    "reward_sd_ratio": 0.8,
}


def make_report(
    *,
    base: Mapping[str, Any] = {},
    aligned: Mapping[str, Any] = {},
    delta: Mapping[str, Any] = {},
    drift: Mapping[str, Any] | None = None,
    **fields: Any,
) -> EvalReport:
    """A report with some figures laid over; a figure that is None is left out. Without `drift` there is no anchor."""
    given = {"prompts": 256, "samples_per_prompt": 2, "winners_mean": 0.66} | fields
    return EvalReport(
        base=ModelMetrics(**_there(MODEL, base)),
        aligned=ModelMetrics(**_there(MODEL, {"reward_mean": 1.2}, aligned)),
        delta=Delta(**_there(DELTA, delta)),
        drift=None if drift is None else Drift(**_there(DRIFT, drift)),
        **given,
    )


def _there(*layers: Mapping[str, Any]) -> dict[str, Any]:
    laid = {name: value for layer in layers for name, value in layer.items()}
    return {name: value for name, value in laid.items() if value is not None}
