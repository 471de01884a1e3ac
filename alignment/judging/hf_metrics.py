"""The metrics as `evaluate.Metric` classes over the plain functions of `alignment.judging.metrics`.

Importing this module imports `evaluate`, which takes seconds: import it inside the function that needs it. The classes
are instantiated directly, since `evaluate.load` asks the hub. Each takes batches by `add_batch` and whole columns by
`compute`, and returns plain floats under the names that its description gives.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import evaluate
from datasets import Features, List, Value

from alignment.judging import metrics

_SEQUENCES = "    predictions: the samples' token ids, EOS included, one list of integers each.\n"
_LENGTHS = "    lengths: the samples' lengths in tokens, EOS included.\n"


class PlainMetric(evaluate.Metric):
    """An `evaluate.Metric` that keeps its columns in memory and touches no disk, unless told `keep_in_memory=False`."""

    def __init__(self, *, keep_in_memory: bool = True, **kwargs: Any) -> None:
        """Every other argument is upstream's: `cache_dir`, `num_process`, `process_id`, `experiment_id`, ..."""
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _build_data_dir(self) -> str:
        """The folder of the cache files; upstream makes one, by default under HOME, even where all stays in memory."""
        return str(self._data_dir_root if self.keep_in_memory else super()._build_data_dir())

    def _finalize(self) -> None:
        """Close the columns; upstream ends in an IndexError where they are empty."""
        if not len(self) and self.num_process == 1:
            raise ValueError(f"{self.name}: no samples to measure")
        super()._finalize()


class TokenEntropy(PlainMetric):
    """Shannon entropy of the unigram distribution over all generated tokens."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="token_entropy: Shannon entropy in nats of the unigram distribution over all generated tokens.",
            citation="",
            inputs_description=f"Args:\n{_SEQUENCES}",
            features=Features({"predictions": List(Value("int64"))}),
        )

    def _compute(self, predictions: Sequence[Sequence[int]]) -> dict[str, float]:
        return {"token_entropy": metrics.token_entropy(predictions)}


class DistinctN(PlainMetric):
    """Distinct n-grams over generated tokens, for each order."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="distinct_1, distinct_2, ...: distinct n-grams over generated tokens.",
            citation="Li et al. 2016, A Diversity-Promoting Objective Function for Neural Conversation Models",
            inputs_description=f"Args:\n{_SEQUENCES}    orders: the values of n, by default 1, 2 and 3.\n",
            features=Features({"predictions": List(Value("int64"))}),
        )

    def _compute(self, predictions: Sequence[Sequence[int]], orders: Sequence[int] = (1, 2, 3)) -> dict[str, float]:
        return {f"distinct_{n}": metrics.distinct_n(predictions, n) for n in orders}


class Repetition(PlainMetric):
    """Fraction of repeated n-grams within a text, mean over texts."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="repetition: fraction of repeated n-grams within a text, mean over texts of at least n tokens.",
            citation="Welleck et al. 2020, Neural Text Generation with Unlikelihood Training",
            inputs_description=f"Args:\n{_SEQUENCES}    n: the order of the n-grams, by default 3.\n",
            features=Features({"predictions": List(Value("int64"))}),
        )

    def _compute(self, predictions: Sequence[Sequence[int]], n: int = 3) -> dict[str, float]:
        return {"repetition": metrics.repetition(predictions, n)}


class Perplexity(PlainMetric):
    """Perplexity of samples from their log-probs under the judging model."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="perplexity: exp of minus the total log-prob over the total number of tokens.",
            citation="",
            inputs_description=(
                f"Args:\n    predictions: the samples' summed log-probs in nats under the judging model.\n{_LENGTHS}"
            ),
            features=Features({"predictions": Value("float64"), "lengths": Value("int64")}),
        )

    def _compute(self, predictions: Sequence[float], lengths: Sequence[int]) -> dict[str, float]:
        return {"perplexity": metrics.perplexity(predictions, lengths)}


class KLToReference(PlainMetric):
    """KL(policy || reference), estimated on the policy's own samples."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="kl, kl_per_token: KL(policy || reference) in nats a sequence and in nats a token.",
            citation="",
            inputs_description=(
                "Args:\n    predictions: summed log-probs in nats of the policy's samples, under the policy.\n"
                f"    references: of the same samples, under the reference.\n{_LENGTHS}"
            ),
            features=Features(
                {"predictions": Value("float64"), "references": Value("float64"), "lengths": Value("int64")}
            ),
        )

    def _compute(
        self, predictions: Sequence[float], references: Sequence[float], lengths: Sequence[int]
    ) -> dict[str, float]:
        return {
            "kl": metrics.kl_per_sequence(predictions, references),
            "kl_per_token": metrics.kl_per_token(predictions, references, lengths),
        }


class Reward(PlainMetric):
    """Mean and spread of the reward."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="reward_mean, reward_sd: mean and sample standard deviation of the reward.",
            citation="",
            inputs_description="Args:\n    predictions: the samples' rewards, as raw logits of the reward model.\n",
            features=Features({"predictions": Value("float64")}),
        )

    def _compute(self, predictions: Sequence[float]) -> dict[str, float]:
        return {"reward_mean": metrics.reward_mean(predictions), "reward_sd": metrics.reward_sd(predictions)}


_CLASSES = (TokenEntropy, DistinctN, Repetition, Perplexity, KLToReference, Reward)


def all_metrics(cache_dir: Path | None = None) -> dict[str, evaluate.Metric]:
    """One of each metric by its name; with a `cache_dir` the columns wait in files there instead of in memory."""
    where: dict[str, Any] = {} if cache_dir is None else {"keep_in_memory": False, "cache_dir": str(cache_dir)}
    return {metric.name: metric for metric in (each(**where) for each in _CLASSES)}
