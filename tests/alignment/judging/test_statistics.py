"""Paired statistics over prompts, against scipy, the normal approximation, and the laws that they must keep."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap

from alignment.judging import statistics
from alignment.judging.statistics import length_matched_win_rate, paired_bootstrap, win_rate, wins

scores = st.integers(-3, 3).map(float)  # few values, so that ties happen
paired = st.lists(st.tuples(scores, scores), min_size=1, max_size=30).map(lambda rows: np.array(rows).T)
relaxed = settings(deadline=None)


class TestPairedBootstrap:
    def test_agrees_with_scipy(self) -> None:
        """Two runs of 20,000 resamples differ at the 2.5% point by a few thousandths of the mean's SD (about 0.14)."""
        differences = np.random.default_rng(1).normal(0.4, 1.0, 50) ** 3
        expected = scipy_bootstrap(
            (differences,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile", rng=7
        ).confidence_interval
        sd = differences.std() / math.sqrt(50)
        assert paired_bootstrap(differences, 20_000, 0.9, seed=0) == pytest.approx(tuple(expected), abs=0.06 * sd)

    def test_agrees_with_the_normal_interval(self) -> None:
        """400 normal differences of SD 1: mean +- 1.96 / 20."""
        raw = np.random.default_rng(2).normal(size=400)
        differences = 0.3 + (raw - raw.mean()) / raw.std()
        assert paired_bootstrap(differences, 20_000, 0.95, seed=0) == pytest.approx((0.202, 0.398), abs=0.004)

    def test_two_prompts_by_hand(self) -> None:
        """Differences 0 and 2: the resampled mean is 0, 1 or 2 with chances 1/4, 1/2, 1/4, so 95% is 0 to 2."""
        assert paired_bootstrap(np.array([0.0, 2.0]), 1_000, 0.95, seed=0) == (0.0, 2.0)

    def test_the_seed_decides(self) -> None:
        differences = np.random.default_rng(3).normal(size=40)
        first = paired_bootstrap(differences, 200, 0.95, seed=5)
        assert first == paired_bootstrap(differences, 200, 0.95, seed=5)
        assert first != paired_bootstrap(differences, 200, 0.95, seed=6)

    @pytest.mark.parametrize("held", [1, 41, 64])
    def test_does_not_depend_on_how_much_is_held_at_once(self, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
        differences = np.random.default_rng(4).normal(size=17)
        whole = paired_bootstrap(differences, 333, 0.95, seed=0)
        monkeypatch.setattr(statistics, "_CHUNK", held)
        assert paired_bootstrap(differences, 333, 0.95, seed=0) == whole

    @relaxed
    @given(st.lists(st.floats(-100, 100), min_size=2, max_size=40), st.integers(0, 5))
    def test_the_interval_contains_the_mean(self, values: list[float], seed: int) -> None:
        low, high = paired_bootstrap(np.array(values), 500, 0.95, seed)
        assert low - 1e-9 <= np.mean(values) <= high + 1e-9

    @relaxed
    @given(st.lists(st.floats(-100, 100), min_size=2, max_size=40))
    def test_more_confidence_is_a_wider_interval(self, values: list[float]) -> None:
        low, high = paired_bootstrap(np.array(values), 300, 0.99, seed=0)
        narrow_low, narrow_high = paired_bootstrap(np.array(values), 300, 0.8, seed=0)
        assert low <= narrow_low <= narrow_high <= high

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_no_interval_where_a_difference_is_not_finite(self, bad: float) -> None:
        assert all(math.isnan(end) for end in paired_bootstrap(np.array([1.0, bad]), 100, 0.95, seed=0))

    @pytest.mark.parametrize("values", [[], [1.0]])
    def test_fewer_than_two_prompts_are_refused(self, values: list[float]) -> None:
        with pytest.raises(ValueError, match=rf"paired_bootstrap: {len(values)} differences"):
            paired_bootstrap(np.array(values), 100, 0.95, seed=0)


class TestWinRate:
    def test_by_hand(self) -> None:
        """Up, tie, down, up: (1 + 1/2 + 0 + 1) / 4."""
        before, after = np.array([0.0, 1.0, 2.0, -1.0]), np.array([1.0, 1.0, 1.0, 0.0])
        assert wins(before, after).tolist() == [1.0, 0.5, 0.0, 1.0]
        assert win_rate(before, after) == 0.625

    @relaxed
    @given(paired)
    def test_is_antisymmetric(self, columns: np.ndarray) -> None:
        before, after = columns
        assert win_rate(before, after) + win_rate(after, before) == pytest.approx(1.0)

    @relaxed
    @given(paired)
    def test_is_unmoved_by_a_monotone_change_of_scale(self, columns: np.ndarray) -> None:
        before, after = columns
        assert win_rate(before, after) == win_rate(np.exp(before), np.exp(after))

    def test_a_prompt_without_a_score_is_not_a_tie(self) -> None:
        assert math.isnan(win_rate(np.array([0.0, math.nan]), np.array([1.0, 1.0])))

    def test_sides_of_different_size_are_refused(self) -> None:
        with pytest.raises(ValueError, match="different shapes"):
            win_rate(np.array([0.0]), np.array([1.0, 2.0]))

    def test_no_prompts_are_refused(self) -> None:
        with pytest.raises(ValueError, match="no prompts"):
            win_rate(np.array([]), np.array([]))


class TestLengthMatchedWinRate:
    def test_by_hand(self) -> None:
        """Lengths 10/11 (1 apart, at most 1.1), 10/12 (2 apart, over 1.2), 20/18 (2 apart, at most 2): first and third.

        They are a win and a loss, the one left out is a win: 1/2 instead of 2/3.
        """
        before, after = np.zeros(3), np.array([1.0, 1.0, -1.0])
        lengths = np.array([10.0, 10.0, 20.0]), np.array([11.0, 12.0, 18.0])
        assert length_matched_win_rate(before, after, *lengths) == 0.5
        assert win_rate(before, after) == pytest.approx(2 / 3)

    def test_growing_and_shrinking_count_alike(self) -> None:
        """9 to 10 and 10 to 9 tokens are both within 10% of the longer."""
        nine, ten = np.array([9.0]), np.array([10.0])
        assert length_matched_win_rate(np.zeros(1), np.ones(1), nine, ten) == 1.0
        assert length_matched_win_rate(np.zeros(1), np.ones(1), ten, nine) == 1.0

    def test_none_where_every_text_grew(self) -> None:
        assert length_matched_win_rate(np.zeros(2), np.ones(2), np.array([5.0, 5.0]), np.array([9.0, 9.0])) is None

    @relaxed
    @given(paired)
    def test_is_the_win_rate_where_lengths_are_equal(self, columns: np.ndarray) -> None:
        before, after = columns
        lengths = np.full(before.size, 8.0)
        assert length_matched_win_rate(before, after, lengths, lengths) == win_rate(before, after)

    def test_scores_and_lengths_of_different_size_are_refused(self) -> None:
        with pytest.raises(ValueError, match="2 scores and 3 lengths"):
            length_matched_win_rate(np.zeros(2), np.ones(2), np.ones(3), np.ones(3))
