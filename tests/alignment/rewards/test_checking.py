"""The scores of any reward, which need not be one of ours: a finite number or none per sample, or an error."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignment.config import AlignConfig
from alignment.errors import ScoreError
from alignment.rewards.checking import score
from alignment.rewards.protocol import Scores, Scoring

SAMPLES = [{"prompt": "a", "text": text} for text in ("a fine film", "a dull film", "a film")]


class Fixed:
    """A reward that says what it is told to."""

    def __init__(self, config: AlignConfig) -> None:
        self.values: Any = [1.0, 2.0, 3.0]
        self.parts: dict[str, Any] = {}

    def score(self, samples: Sequence[Any], work: Scoring) -> Scores:
        if work.progress is not None:
            work.progress(len(samples), len(samples))
        return Scores(self.values, truncated=1, parts=self.parts)


def scored(values: Any, samples: Sequence[Any] = SAMPLES) -> Scores:
    kind = Fixed(AlignConfig())
    kind.values = values
    return score(kind, samples, Scoring(Path(), Path()))


@pytest.mark.parametrize("values", [[1, 2, 3], np.array([1, 2, 3], dtype=np.float32), (1.0, 2.0, 3.0)])
def test_numbers_of_every_kind_become_plain_ones(values):
    found = scored(values)
    assert found == Scores([1.0, 2.0, 3.0], truncated=1)
    assert {type(value) for value in found.values} == {float}


def test_progress_is_passed_on():
    told: list[tuple[int, int]] = []
    score(Fixed(AlignConfig()), SAMPLES, Scoring(Path(), Path(), lambda done, total: told.append((done, total))))
    assert told == [(3, 3)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_refused_with_its_text(value):
    with pytest.raises(ScoreError) as raised:
        scored([1.0, value, value])
    assert str(raised.value) == (
        "reward: 2 of 3 scores are not finite, the first for 'a dull film'; check the reward model's weights or "
        "precision, or the reward's code"
    )


@pytest.mark.parametrize("count", [0, 2, 4])
def test_more_or_fewer_scores_than_samples_are_refused(count):
    with pytest.raises(ScoreError) as raised:
        scored([1.0] * count)
    assert str(raised.value) == (
        f"reward: Fixed gave {count} scores for 3 samples; it has to give one for each, in their order"
    )


def test_a_sample_may_have_no_score():
    assert scored([1, None, 0]) == Scores([1.0, None, 0.0], truncated=1)


def test_the_parts_of_a_sum_are_held_to_the_same():
    kind = Fixed(AlignConfig())
    kind.parts = {"style": np.array([1, 2, 3])}
    assert score(kind, SAMPLES, Scoring(Path(), Path())).parts == {"style": [1.0, 2.0, 3.0]}
    kind.parts = {"style": [1.0]}
    with pytest.raises(ScoreError, match=r"^reward: Fixed, style, gave 1 scores for 3 samples"):
        score(kind, SAMPLES, Scoring(Path(), Path()))


def test_no_samples_have_no_scores():
    assert scored([], []) == Scores([], truncated=1)
