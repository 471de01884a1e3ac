"""The trigram model of real texts: interpolated Kneser-Ney as Chen & Goodman have it, and the share of seen bigrams."""

import random
from fractions import Fraction

import numpy as np
import pytest

from alignment.data.grammar import corpus
from alignment.judging.judges.ngrams import fit, score
from alignment.judging.judges.words import Passages

TEXTS = ["the cat sat", "the cat ran", "a dog sat"]


def test_probabilities_are_those_of_chen_and_goodman() -> None:
    """By hand, of "cat" and "sat" in "the cat sat"; B is the beginning, before which there are two.

    Trigrams: BB-the 2, B-the-cat 2, and five that stand once, so D3 = 5 / (5 + 2 * 2). Each of the seven bigrams has
    one word before it, so no D2 can be estimated and it is 0.75. Of the words "sat" has two others before it, the other
    five one, seven in all: D1 = 5 / (5 + 2 * 1). Below them all seven words, the unknown one with them, are alike.
    """
    d1, d2, d3 = Fraction(5, 7), Fraction(3, 4), Fraction(5, 9)
    rest = d1 * 6 / 7 * Fraction(1, 7)
    cat, sat = (1 - d1) / 7 + rest, (2 - d1) / 7 + rest
    cat_2, sat_2 = (1 - d2) / 1 + d2 * 1 / 1 * cat, (1 - d2) / 2 + d2 * 2 / 2 * sat
    cat_3, sat_3 = (2 - d3) / 2 + d3 * 1 / 2 * cat_2, (1 - d3) / 2 + d3 * 2 / 2 * sat_2
    found = score(fit(TEXTS), Passages(["the cat sat"], [len("the")]))
    assert found.words.tolist() == [2]
    assert found.logprobs[0] == pytest.approx(np.log(float(cat_3 * sat_3)))
    assert found.perplexity == pytest.approx(float(cat_3 * sat_3) ** -0.5)


@pytest.mark.parametrize("before", ["the cat", "dog the", "never seen", ""])
def test_probabilities_of_all_words_and_the_unknown_one_sum_to_one(before: str) -> None:
    model = fit(TEXTS)
    choices = [*model.vocabulary, "unheard"]
    found = score(model, Passages([f"{before} {word}" for word in choices], [len(before)] * len(choices)))
    assert found.words.tolist() == [1] * len(choices)
    assert np.exp(found.logprobs).sum() == pytest.approx(1)


def test_a_bigram_is_seen_where_it_stands_in_a_real_text_and_none_spans_two_texts() -> None:
    found = score(fit(TEXTS), Passages(["the cat ran", "sat the", "cat", "", "the dog sat"], [0, 0, 0, 0, 7]))
    assert found.bigrams.tolist() == [2, 1, 0, 0, 1]
    assert found.seen_bigrams.tolist() == [2, 0, 0, 0, 1]
    assert found.seen_share == 3 / 4
    assert found.logprobs[3] == 0.0


def test_shuffled_words_have_a_higher_perplexity_and_fewer_seen_bigrams() -> None:
    real, held_out = ([text for text, _ in corpus(200, seed)] for seed in (1, 2))
    draws = random.Random(0)
    shuffled = [" ".join(draws.sample(text.split(), len(text.split()))) for text in held_out]
    model = fit(real)
    fluent, salad = score(model, Passages(held_out)), score(model, Passages(shuffled))
    assert fluent.seen_share > 0.95 > 0.5 > salad.seen_share
    assert salad.perplexity > 10 * fluent.perplexity


def test_without_two_words_in_a_row_there_is_no_model() -> None:
    with pytest.raises(ValueError, match="no two words in a row in 2 texts"):
        fit(["one", ""])


def test_without_a_word_there_is_nothing_to_judge() -> None:
    found = score(fit(TEXTS), Passages(["", " "]))
    with pytest.raises(ValueError, match="no words to judge in 2 texts"):
        _ = found.perplexity
    with pytest.raises(ValueError, match="no bigrams to judge in 2 texts"):
        _ = found.seen_share
