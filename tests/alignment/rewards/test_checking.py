"""The scores of any reward, which need not be one of ours: a finite number or none per sample, or an error."""

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignment.config import AlignConfig
from alignment.errors import ScoreError
from alignment.rewards.checking import score, score_batches
from alignment.rewards.protocol import Batches, InBatches, Scores, Scoring

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


# Batches


def in_batches(gives: list[Scores], *, takes: int) -> list[Scores]:
    """What is made of five samples in three batches where a kind takes some of them before it gives its scores."""
    texts = [[{"text": text} for text in batch] for batch in (["a", "b"], ["c", "d"], ["e"])]

    class Kind(InBatches):
        def score_batches(self, batches: Batches, work: Scoring) -> Generator[Scores]:
            left = iter(batches)
            for _ in range(takes):
                next(left)
            yield from gives

    return list(score_batches(Kind(), Batches(5, lambda: iter(texts)), Scoring(Path(), Path())))


ONE_EACH = [Scores([1, None]), Scores([3, 4]), Scores([5])]


def test_batches_may_be_taken_before_the_first_is_scored() -> None:
    assert in_batches(ONE_EACH, takes=3) == ONE_EACH


@pytest.mark.parametrize(
    ("gives", "takes", "told"),
    [
        (ONE_EACH, 0, "Kind gave scores for 1 batches and took 0; it has to give them for each batch that it takes"),
        (ONE_EACH, 2, "Kind gave scores for 3 batches and took 2;"),
        ([*ONE_EACH, Scores([6])], 3, "Kind gave scores for 4 batches and took 3;"),
        (ONE_EACH[:2], 3, "Kind gave 1 of 5 samples no score"),
        (
            [ONE_EACH[0], Scores([3, float("nan")]), ONE_EACH[2]],
            3,
            "1 of 2 scores of samples 3 to 4 are not finite, the first for 'd'; check the",
        ),
    ],
    ids=["none taken", "fewer taken", "more given", "fewer given", "not finite"],
)
def test_what_is_wrong_with_a_batch_is_told_by_the_kind_or_the_samples(
    gives: list[Scores], takes: int, told: str
) -> None:
    with pytest.raises(ScoreError) as raised:
        in_batches(gives, takes=takes)
    assert str(raised.value).startswith(f"reward: {told}")


@pytest.mark.parametrize("parts", [[{"style": [1, 2]}, {}], [{}, {"style": [1, 2]}]], ids=["lost", "new"])
def test_parts_that_not_every_batch_has_are_refused(parts: list[dict[str, Any]]) -> None:
    gives = [replace(scores, parts=part) for scores, part in zip(ONE_EACH[:2], parts, strict=True)]
    with pytest.raises(ScoreError) as raised:
        in_batches(gives, takes=2)
    assert str(raised.value) == (
        "reward: Kind gave the scores of samples 3 to 4 other parts than those before, such as style; it has to give "
        "the same parts for each batch, None where a sample has no score"
    )


@pytest.mark.parametrize("number", [0, 2])
def test_a_kind_that_goes_through_batches_scores_one_as_one(number: int) -> None:
    class Kind(InBatches):
        def score_batches(self, batches: Batches, work: Scoring) -> Generator[Scores]:
            list(batches)
            yield from [Scores([1.0, 2.0, 3.0])] * number

    with pytest.raises(ScoreError, match=rf"^reward: Kind gave scores for {number} batches and took 1; "):
        score(Kind(), SAMPLES, Scoring(Path(), Path()))
