"""The aligned model against the base on the same held-out prompts: from per-sample numbers to one EvalReport."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from alignment.config import EvaluationConfig
from alignment.judging.metrics import Tokens
from alignment.judging.report import Delta, Drift, EvalReport, ModelMetrics
from alignment.judging.statistics import length_matched_win_rate, paired_bootstrap, win_rate, wins

Array = npt.NDArray[np.float64]


class Metric(Protocol):
    """What is asked of a metric here; `hf_metrics.all_metrics` gives the six that are used, by name."""

    def compute(self, **inputs: Any) -> dict[str, float]:
        """Named values from whole columns of samples."""


Metrics = Mapping[str, Metric]


@dataclass(frozen=True, eq=False)
class Measured:
    """One model's fresh samples on the held-out prompts: every field (samples,), in the same order.

    Log-probs are sums over the completion, in nats, EOS included where the sample ended by it.
    """

    prompt_ids: Sequence[str]
    completions: Sequence[Tokens]  # token ids as sampled
    rewards: Array  # the reward model's raw logits
    base_logprobs: Array  # under the base model
    policy_logprobs: Array  # under the model that wrote the sample
    finished: npt.NDArray[np.bool_]
    texts: Sequence[str]
    grammatical: Array | None = None  # per text, the fraction of sentences that parse; None where not judged
    gold: Array | None = None  # per text, the sentiment by the grammar, -1 to 1; None where not judged

    def __post_init__(self) -> None:
        """Raise ValueError for no samples at all, or for a field that has more or fewer of them than the others."""
        if not len(self.prompt_ids):
            raise ValueError("measured: no samples to evaluate")
        for field in fields(self):
            column = getattr(self, field.name)
            if column is not None and len(column) != len(self.prompt_ids):
                raise ValueError(f"measured: {len(column)} {field.name} for {len(self.prompt_ids)} prompt_ids")

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Completion lengths in tokens."""
        return np.array([len(completion) for completion in self.completions], dtype=np.int64)


def measure(measured: Measured, metrics: Metrics) -> ModelMetrics:
    """One model's row of the report."""
    reward = metrics["reward"].compute(predictions=measured.rewards)
    distinct = metrics["distinct_n"].compute(predictions=measured.completions)
    return ModelMetrics(
        reward_mean=reward["reward_mean"],
        reward_sd=reward["reward_sd"],
        entropy=metrics["token_entropy"].compute(predictions=measured.completions)["token_entropy"],
        perplexity=metrics["perplexity"].compute(predictions=measured.base_logprobs, lengths=measured.lengths)[
            "perplexity"
        ],
        distinct_1=distinct["distinct_1"],
        distinct_2=distinct["distinct_2"],
        distinct_3=distinct["distinct_3"],
        repetition=metrics["repetition"].compute(predictions=measured.completions)["repetition"],
        length=float(measured.lengths.mean()),
        finished=float(np.mean(measured.finished)),
        grammatical=None if measured.grammatical is None else float(np.mean(measured.grammatical)),
        gold_sentiment=None if measured.gold is None else float(np.mean(measured.gold)),
    )


def compare(
    base: Measured,
    aligned: Measured,
    *,
    metrics: Metrics,
    winners_mean: float,
    config: EvaluationConfig,
    seed: int,
) -> EvalReport:
    """Fill the report: means over samples, gain and win rate paired by prompt with a bootstrap over prompts.

    `winners_mean` is only carried along. The order of the samples does not matter.
    Raises ValueError unless both sides have the same prompts with the same number of samples each, and both or neither
    were judged for grammar.
    """
    prompts, samples = _design(base, aligned)
    if (base.grammatical is None) != (aligned.grammatical is None):
        raise ValueError("compare: grammar was judged for one model only; judge both, or neither")
    before, after = measure(base, metrics), measure(aligned, metrics)
    kl = metrics["kl_to_reference"].compute(
        predictions=aligned.policy_logprobs, references=aligned.base_logprobs, lengths=aligned.lengths
    )
    reward_before, reward_after = _by_prompt(base, base.rewards), _by_prompt(aligned, aligned.rewards)
    length_before, length_after = _by_prompt(base, base.lengths), _by_prompt(aligned, aligned.lengths)
    with np.errstate(invalid="ignore"):
        differences = reward_after - reward_before
    gain = float(differences.mean())
    return EvalReport(
        prompts=prompts,
        samples_per_prompt=samples,
        confidence=config.confidence,
        base=before,
        aligned=after,
        delta=Delta(
            reward_gain=gain,
            reward_gain_ci=paired_bootstrap(differences, config.bootstrap, config.confidence, seed),
            reward_gain_in_sd=_ratio(gain, before.reward_sd),
            reward_sd_ratio=_ratio(after.reward_sd, before.reward_sd),
            win_rate=win_rate(reward_before, reward_after),
            win_rate_ci=paired_bootstrap(wins(reward_before, reward_after), config.bootstrap, config.confidence, seed),
            win_rate_length_matched=length_matched_win_rate(reward_before, reward_after, length_before, length_after),
            perplexity_ratio=_ratio(after.perplexity, before.perplexity),
            kl=kl["kl"],
            kl_per_token=kl["kl_per_token"],
            entropy_change=after.entropy - before.entropy,
            length_change=after.length - before.length,
            grammar_drop=_drop(before.grammatical, after.grammatical),
        ),
        winners_mean=winners_mean,
    )


def drift(anchor: Measured, base: Measured, aligned: Measured, *, metrics: Metrics) -> Drift:
    """How far two models are from the anchor; in all three, `base_logprobs` are log-probs under the anchor.

    Raises ValueError unless all three have the same prompts with the same number of samples each.
    """
    _design(anchor, base)
    _design(anchor, aligned)

    def kl(model: Measured) -> float:
        return metrics["kl_to_reference"].compute(
            predictions=model.policy_logprobs, references=model.base_logprobs, lengths=model.lengths
        )["kl_per_token"]

    def perplexity(model: Measured) -> float:
        return metrics["perplexity"].compute(predictions=model.base_logprobs, lengths=model.lengths)["perplexity"]

    own, reward = perplexity(anchor), float(np.mean(anchor.rewards))
    return Drift(
        base_kl_per_token=kl(base),
        kl_per_token=kl(aligned),
        base_perplexity_ratio=_ratio(perplexity(base), own),
        perplexity_ratio=_ratio(perplexity(aligned), own),
        anchor_reward_mean=reward,
        reward_gain=float(np.mean(aligned.rewards)) - reward,
        reward_sd_ratio=_ratio(float(np.std(aligned.rewards, ddof=1)), float(np.std(anchor.rewards, ddof=1))),
    )


def _design(base: Measured, aligned: Measured) -> tuple[int, int]:
    """The number of prompts and of samples a prompt, once both sides are known to share them."""
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


def _by_prompt(measured: Measured, values: npt.NDArray[Any]) -> Array:
    """The mean of each prompt's samples, in the order of the sorted prompt ids: (prompts,)."""
    _, prompt, counts = np.unique(np.asarray(measured.prompt_ids), return_inverse=True, return_counts=True)
    with np.errstate(invalid="ignore"):
        return np.bincount(prompt, weights=np.asarray(values, dtype=np.float64)) / counts


def _ratio(after: float, before: float) -> float:
    """after / before, not finite (and so no gate's pass) where `before` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.float64(after) / np.float64(before))


def _drop(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after
