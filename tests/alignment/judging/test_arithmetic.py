"""The metrics' arithmetic, against values worked out by hand and against independent implementations."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from alignment.judging import arithmetic as metrics

sequences = st.lists(st.lists(st.integers(0, 5), max_size=9), min_size=1, max_size=8).filter(lambda texts: any(texts))
relaxed = settings(deadline=None)


def ngrams(sequence: list[int], n: int) -> list[tuple[int, ...]]:
    return list(zip(*(sequence[k:] for k in range(n)), strict=False))


class TestTokenEntropy:
    def test_by_hand(self) -> None:
        """Tokens 7 7 8 9: p = 1/2, 1/4, 1/4, so H = 1/2 ln 2 + 2 x 1/4 ln 4 = 1.5 ln 2."""
        assert metrics.token_entropy([[7, 7], [8, 9]]) == pytest.approx(1.5 * math.log(2))

    def test_one_token_over_and_over_is_exactly_zero(self) -> None:
        assert str(metrics.token_entropy([[3, 3, 3]])) == "0.0"

    @relaxed
    @given(sequences)
    def test_agrees_with_scipy(self, texts: list[list[int]]) -> None:
        counts = Counter(token for text in texts for token in text)
        assert metrics.token_entropy(texts) == pytest.approx(scipy_entropy(list(counts.values())))

    @relaxed
    @given(sequences)
    def test_lies_between_zero_and_ln_of_the_vocabulary(self, texts: list[list[int]]) -> None:
        used = len({token for text in texts for token in text})
        assert 0 <= metrics.token_entropy(texts) <= math.log(used) + 1e-12

    @relaxed
    @given(st.permutations(list(range(4)) * 2))
    def test_is_blind_to_word_order(self, shuffled: list[int]) -> None:
        """Why entropy alone cannot see word salad."""
        assert metrics.token_entropy([shuffled]) == metrics.token_entropy([[0, 1, 2, 3, 0, 1, 2, 3]])


class TestDistinct:
    @pytest.mark.parametrize(("n", "expected"), [(1, 3 / 6), (2, 3 / 6), (3, 2 / 6), (4, 0.0)])
    def test_by_hand(self, n: int, expected: float) -> None:
        """Texts 1 2 1 and 1 2 3, six tokens.

        n=1: {1, 2, 3}; n=2: {12, 21, 23}; n=3: {121, 123}; n=4: none, and none that runs from one text into the next.
        """
        assert metrics.distinct_n([[1, 2, 1], [1, 2, 3]], n) == pytest.approx(expected)

    @relaxed
    @given(sequences, st.integers(1, 4))
    def test_agrees_with_a_set(self, texts: list[list[int]], n: int) -> None:
        distinct = {gram for text in texts for gram in ngrams(text, n)}
        assert metrics.distinct_n(texts, n) == len(distinct) / sum(map(len, texts))

    def test_n_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="n = 0"):
            metrics.distinct_n([[1]], 0)


class TestRepetition:
    def test_by_hand(self) -> None:
        """n=2. Text 1 1 1 1: 11 three times, 1 - 1/3 = 2/3. Text 1 2 3: 12 and 23, none repeated, 0. Text 5: left out.

        Mean over the two texts that count: 1/3. That 11 and 12 share a token is no repetition.
        """
        assert metrics.repetition([[1, 1, 1, 1], [5], [1, 2, 3]], n=2) == pytest.approx(1 / 3)

    def test_the_same_text_twice_is_not_repetition_within_a_text(self) -> None:
        assert metrics.repetition([[1, 2, 3, 4], [1, 2, 3, 4]]) == 0.0

    def test_zero_where_no_text_is_long_enough(self) -> None:
        assert metrics.repetition([[1, 2], [1]]) == 0.0

    @relaxed
    @given(sequences, st.integers(1, 4))
    def test_agrees_with_a_counter(self, texts: list[list[int]], n: int) -> None:
        fractions = []
        for text in texts:
            counts = Counter(ngrams(text, n))
            if counts:
                fractions.append(1 - len(counts) / counts.total())
        expected = sum(fractions) / len(fractions) if fractions else 0.0
        assert metrics.repetition(texts, n) == pytest.approx(expected)


class TestPerplexity:
    def test_by_hand(self) -> None:
        """A model that gives each of 4 tokens 1/8 has perplexity 8: log-probs 1 ln(1/8) and 3 ln(1/8)."""
        assert metrics.perplexity([-math.log(8), -3 * math.log(8)], [1, 3]) == pytest.approx(8)

    def test_weighs_tokens_not_texts(self) -> None:
        """-1 over 1 token and -3 over 9 tokens: exp(4/10), not the mean of exp(1) and exp(1/3)."""
        assert metrics.perplexity([-1.0, -3.0], [1, 9]) == pytest.approx(math.exp(0.4))

    def test_infinite_where_it_overflows(self) -> None:
        assert metrics.perplexity([-math.inf], [3]) == math.inf
        assert metrics.perplexity([-1e6], [1]) == math.inf


class TestKL:
    def test_by_hand(self) -> None:
        """Differences 1 and 2 nats over texts of 2 and 4 tokens: 3/2 a sequence, 3/6 a token."""
        policy, reference = [-1.0, -4.0], [-2.0, -6.0]
        assert metrics.kl_per_sequence(policy, reference) == pytest.approx(1.5)
        assert metrics.kl_per_token(policy, reference, [2, 4]) == pytest.approx(0.5)

    def test_zero_for_the_reference_itself(self) -> None:
        assert metrics.kl_per_sequence([-1.0, -2.0], [-1.0, -2.0]) == 0.0

    def test_estimates_the_exact_divergence(self) -> None:
        """One token from two known distributions: the estimate over 200,000 draws meets scipy's exact sum.

        The log ratio's SD is below 1, so four standard errors are below 0.009.
        """
        p, q = np.array([0.6, 0.3, 0.1]), np.array([0.3, 0.3, 0.4])
        draws = np.random.default_rng(0).choice(3, size=200_000, p=p)
        estimate = metrics.kl_per_sequence(np.log(p)[draws], np.log(q)[draws])
        assert estimate == pytest.approx(scipy_entropy(p, q), abs=0.009)

    def test_infinite_where_the_reference_excludes_a_sample(self) -> None:
        assert metrics.kl_per_token([-1.0], [-math.inf], [2]) == math.inf


def test_reward_mean_and_sd_by_hand() -> None:
    """1 2 3 4: mean 2.5, squared deviations 2.25 + 0.25 + 0.25 + 2.25 = 5 over n - 1 = 3."""
    assert metrics.reward_mean([1.0, 2.0, 3.0, 4.0]) == 2.5
    assert metrics.reward_sd([1.0, 2.0, 3.0, 4.0]) == pytest.approx(math.sqrt(5 / 3))


def test_an_infinite_reward_gives_no_finite_spread() -> None:
    assert math.isnan(metrics.reward_sd([1.0, math.inf]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.token_entropy([]), "token_entropy: no tokens"),
        (lambda: metrics.token_entropy([[], []]), "token_entropy: no tokens to measure in 2 sequences"),
        (lambda: metrics.distinct_n([], 2), "distinct_2: no tokens"),
        (lambda: metrics.repetition([[]]), "repetition: no tokens"),
        (lambda: metrics.perplexity([], []), "perplexity: no samples"),
        (lambda: metrics.perplexity([-1.0], [0]), "perplexity: no tokens"),
        (lambda: metrics.perplexity([-1.0], [1, 2]), "perplexity: inputs of different lengths, 1 and 2"),
        (lambda: metrics.kl_per_sequence([], []), "kl_per_sequence: no samples"),
        (lambda: metrics.kl_per_sequence([-1.0], [-1.0, -2.0]), "kl_per_sequence: inputs of different lengths"),
        (lambda: metrics.kl_per_token([], [], []), "kl_per_token: no samples"),
        (lambda: metrics.kl_per_token([-1.0], [-1.0], [0]), "kl_per_token: no tokens"),
        (lambda: metrics.reward_mean([]), "reward_mean: no samples"),
        (lambda: metrics.reward_sd([]), "reward_sd: no samples"),
        (lambda: metrics.reward_sd([1.0]), "reward_sd: one reward"),
    ],
)
def test_nothing_to_measure_is_an_error_that_names_the_metric(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
