"""The `evaluate.Metric` classes: equal to the plain functions, by whole column and by batch, and quiet on disk."""

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest

from alignment.judging import arithmetic as plain
from alignment.judging.hf_metrics import all_metrics

TEXTS = [[1, 2, 1, 2, 1, 2], [3], [1, 2, 3, 4], [4, 4, 4, 4]]
LENGTHS = [6, 1, 4, 4]
POLICY = np.array([-5.0, -0.5, -3.25, -1.125])
REFERENCE = np.array([-7.0, -0.25, -4.5, -9.0])
REWARDS = np.array([0.3, -1.7, 2.0, 1.1])

CASES: dict[str, tuple[dict[str, Any], float]] = {
    "reward_mean": ({"rewards": REWARDS}, plain.reward_mean(REWARDS)),
    "reward_sd": ({"rewards": REWARDS}, plain.reward_sd(REWARDS)),
    "perplexity": ({"base_logprobs": REFERENCE, "lengths": LENGTHS}, plain.perplexity(REFERENCE, LENGTHS)),
    "entropy": ({"completions": TEXTS}, plain.token_entropy(TEXTS)),
    "distinct_1": ({"completions": TEXTS}, plain.distinct_n(TEXTS, 1)),
    "distinct_2": ({"completions": TEXTS}, plain.distinct_n(TEXTS, 2)),
    "distinct_3": ({"completions": TEXTS}, plain.distinct_n(TEXTS, 3)),
    "repetition": ({"completions": TEXTS}, plain.repetition(TEXTS)),
    "length": ({"lengths": LENGTHS}, 3.75),
    "finished": ({"finished": [True, False, False, False]}, 0.25),
    "word_perplexity": ({"word_logprobs": [-2.0, -4.0, 0.0, -6.0], "words": [1.0, 2.0, 0.0, 3.0]}, np.exp(2.0)),
    "seen_bigrams": ({"seen_bigrams": [1.0, 0.0, 0.0, 2.0], "bigrams": [2.0, 2.0, 0.0, 4.0]}, 0.375),
    "realism_auc": ({"outranked": [0.5, 1.0, np.nan, 0.75]}, 0.75),
    "grammatical": ({"grammatical": [1.0, 0.5, 0.5, 0.0]}, 0.5),
    "gold_sentiment": ({"gold_sentiment": [1.0, -1.0, 0.5, 0.5]}, 0.25),
    "kl_per_token": (
        {"policy_logprobs": POLICY, "base_logprobs": REFERENCE, "lengths": LENGTHS},
        plain.kl_per_token(POLICY, REFERENCE, LENGTHS),
    ),
    "kl": ({"policy_logprobs": POLICY, "base_logprobs": REFERENCE}, plain.kl_per_sequence(POLICY, REFERENCE)),
}


@pytest.fixture(params=["memory", "disk"])
def metrics(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, evaluate.Metric]:
    return all_metrics(tmp_path / "cache" if request.param == "disk" else None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where upstream would keep its cache."""
    folder = tmp_path / "home"
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", folder)
    return folder


def test_there_is_one_of_each(metrics: dict[str, evaluate.Metric]) -> None:
    assert list(metrics) == list(CASES)
    for name, metric in metrics.items():
        assert isinstance(metric, evaluate.Metric)
        assert metric.name == name
        assert set(metric.features) == set(CASES[name][0])


@pytest.mark.parametrize("name", CASES)
def test_a_whole_column_gives_exactly_the_plain_function(metrics: dict[str, evaluate.Metric], name: str) -> None:
    columns, expected = CASES[name]
    assert metrics[name].compute(**columns) == {name: expected}
    assert metrics[name].compute(**columns) == {name: expected}  # and nothing of it is left for the next time


@pytest.mark.parametrize("name", CASES)
def test_batches_add_up_to_the_whole(metrics: dict[str, evaluate.Metric], name: str) -> None:
    """The values are of all samples together, not means over batches."""
    columns, expected = CASES[name]
    for batch in (slice(0, 1), slice(1, 4)):
        metrics[name].add_batch(**{column: values[batch] for column, values in columns.items()})
    assert metrics[name].compute() == {name: expected}


def test_sequences_may_be_arrays(metrics: dict[str, evaluate.Metric]) -> None:
    arrays = [np.array(text, dtype=np.int32) for text in TEXTS]
    assert metrics["entropy"].compute(completions=arrays) == {"entropy": CASES["entropy"][1]}


@pytest.mark.parametrize("columns", [{"completions": []}])
def test_no_samples_is_an_error_that_names_the_metric(
    metrics: dict[str, evaluate.Metric], columns: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="entropy: no samples"):
        metrics["entropy"].compute(**columns)


def test_columns_of_different_lengths_are_refused(metrics: dict[str, evaluate.Metric]) -> None:
    with pytest.raises(ValueError, match="Mismatch in the number of"):
        metrics["perplexity"].compute(base_logprobs=REFERENCE, lengths=LENGTHS[:2])


def test_in_memory_nothing_is_written(tmp_path: Path) -> None:
    for name, metric in all_metrics().items():
        metric.compute(**CASES[name][0])
    assert list(tmp_path.iterdir()) == []


def test_with_a_cache_folder_only_it_is_written(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for name, metric in all_metrics(cache).items():
        metric.compute(**CASES[name][0])
    assert list(tmp_path.iterdir()) == [cache]
    assert not list(cache.rglob("*.arrow"))  # the columns are removed once the value is known


@pytest.mark.parametrize("name", CASES)
def test_a_metric_explains_itself(name: str) -> None:
    metric = all_metrics()[name]
    assert metric.description.startswith(f"{name}: ")
    assert all(column in metric.inputs_description for column in CASES[name][0])
