"""Real texts against generated ones: chance is 0.5, what is told apart is above, and length gives nothing away."""

import random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from alignment.data.grammar import corpus
from alignment.judging.judges.realism import like_pieces, placements, tell_apart
from alignment.judging.judges.words import Passages, words

REAL, OTHERS = ([text for text, _ in corpus(120, seed)] for seed in (1, 2))


def shuffled(text: str, draws: random.Random) -> str:
    return " ".join(draws.sample(text.split(), len(text.split())))


def test_real_texts_are_not_told_from_real_texts() -> None:
    assert tell_apart(REAL, Passages(OTHERS)).auc == pytest.approx(0.5, abs=0.1)


def test_shuffled_words_are_told_from_real_texts() -> None:
    draws = random.Random(0)
    found = tell_apart(REAL, Passages([shuffled(text, draws) for text in OTHERS]))
    assert found.auc > 0.99
    assert found.accuracy > 0.95
    assert found.real_probabilities.mean() < 0.3


def test_length_does_not_give_a_text_away() -> None:
    short = [" ".join(text.split()[:12]) for text in OTHERS]
    assert tell_apart(REAL, Passages(short)).auc == pytest.approx(0.5, abs=0.1)


def test_pieces_have_as_many_words_as_far_from_the_start() -> None:
    starts = [len("an opening of five words")] * 2
    texts = ["an opening of five words and three more", "an opening of five words"]
    real = ["one two three four five six seven", "one two"]
    assert like_pieces(real, Passages(texts, starts), np.array([0, 1])) == [(0, "six seven", "and three")]


def test_a_text_is_judged_by_what_never_saw_its_group() -> None:
    """Two texts of each prompt are of the same made-up words, which tell nothing of another prompt's."""
    draws = random.Random(0)
    made_up = [" ".join("".join(draws.choices("abcdefghij", k=6)) for _ in range(4)) for _ in range(180)]
    groups = [number // 2 for number in range(120)]
    real, tagged = made_up[:120], Passages([made_up[120 + group] for group in groups])
    assert tell_apart(real, tagged).auc > 0.65
    assert tell_apart(real, tagged, groups).auc == pytest.approx(0.5, abs=0.1)


def test_fewer_real_texts_judge_fewer_generated_ones() -> None:
    found = tell_apart(REAL[:40], Passages(OTHERS))
    assert np.isfinite(found.outranked).sum() == np.isfinite(found.real_probabilities).sum() == 40


def test_the_same_seed_gives_the_same_answer() -> None:
    one, two = (tell_apart(REAL, Passages(OTHERS), seed=3) for _ in range(2))
    assert np.array_equal(one.outranked, two.outranked)


@pytest.mark.parametrize("texts", [["", " "], ["a film", "a film"]])
def test_what_cannot_be_told_apart_is_not_a_number(texts: list[str]) -> None:
    found = tell_apart(REAL, Passages(texts), groups=[0, 0])
    assert np.isnan(found.auc)
    assert np.isnan(found.accuracy)
    assert np.isnan(found.outranked).all()


def test_the_mean_placement_is_the_auc() -> None:
    draws = np.random.default_rng(0)
    real, fake = draws.integers(0, 9, 50) / 8, draws.integers(0, 7, 70) / 8
    expected = roc_auc_score(np.repeat([1, 0], [50, 70]), [*real, *fake])
    assert placements(real, fake).mean() == pytest.approx(expected)


def test_words_of_a_piece_are_whole() -> None:
    (piece,) = like_pieces(
        ["The film isn't dull<br />at all."], Passages(["It ran for two hours, alas"]), np.array([0])
    )
    assert words(piece[1]) == ["the", "film", "isn't", "dull", "<br />", "at", "all"]
