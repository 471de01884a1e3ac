"""Paired statistics over prompts, against scipy, the normal approximation, and the laws that they must keep."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap

from alignment.judging import statistics
from alignment.judging.statistics import gain_at_equal_length, length_matched_win_rate, paired_bootstrap, win_rate, wins

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


Samples = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def samples_of(rng: np.random.Generator, prompts: int, *, gain: float, slope: float, growth: float) -> Samples:
    """One to three samples of each side to each prompt; texts to some prompts are long, and liked, on both sides."""
    level = rng.normal(0, 3, prompts)
    columns = []
    for side in (0, 1):
        prompt = np.repeat(np.arange(prompts), rng.integers(1, 4, prompts))
        lengths = np.round(20 + 5 * level[prompt] + growth * side + rng.normal(0, 4, prompt.size))
        values = 2 * level[prompt] + gain * side + slope * lengths + rng.normal(0, 0.5, prompt.size)
        columns.append((prompt, np.full(prompt.size, side == 1), values, lengths))
    prompt, is_after, values, lengths = (np.concatenate(column) for column in zip(*columns, strict=True))
    return prompt, is_after, values, lengths


def by_least_squares(samples: Samples, draws: np.ndarray) -> float:
    """NumPy's solution with a dummy for each drawn prompt, and each side of a prompt weighing 1."""
    parts = []
    for number, drawn in enumerate(draws):
        rows = samples[0] == drawn
        dummies = np.zeros((rows.sum(), draws.size))
        dummies[:, number] = 1
        _, is_after, values, lengths = (column[rows] for column in samples)
        weight = np.sqrt(1 / np.array([(is_after == side).sum() for side in is_after]))
        parts.append(np.column_stack([is_after, lengths, dummies, values]) * weight[:, None])
    rows = np.concatenate(parts)
    return float(np.linalg.lstsq(rows[:, :-1], rows[:, -1])[0][0])


class TestGainAtEqualLength:
    def test_agrees_with_numpy_in_value_and_interval(self) -> None:
        """The same 40 draws of prompts, each fitted by least squares on all its dummies."""
        samples = samples_of(np.random.default_rng(0), 12, gain=0.4, slope=0.1, growth=6)
        found = gain_at_equal_length(*samples, 40, 0.9, 5)
        assert found is not None
        assert found[0] == pytest.approx(by_least_squares(samples, np.arange(12)))
        drawn = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=40)
        gains = [by_least_squares(samples, np.repeat(np.arange(12), counts)) for counts in drawn]
        assert found[1] == pytest.approx(tuple(np.quantile(gains, [0.05, 0.95])))

    def test_finds_the_gain_behind_a_growth_that_is_worth_more(self) -> None:
        """Worth 0.1 a token, 8 tokens more are 0.8; the plain gain says 1.1, and 0.3 of it is no matter of length."""
        samples = samples_of(np.random.default_rng(1), 400, gain=0.3, slope=0.1, growth=8)
        found = gain_at_equal_length(*samples, 500, 0.95, 0)
        assert found is not None
        gain, (low, high) = found
        assert low < 0.3 < high
        assert gain == pytest.approx(0.3, abs=0.1)

    def test_a_gain_by_length_alone_is_none(self) -> None:
        samples = samples_of(np.random.default_rng(2), 400, gain=0.0, slope=0.1, growth=8)
        found = gain_at_equal_length(*samples, 500, 0.95, 0)
        assert found is not None
        assert found[1][0] < 0 < found[1][1]

    def test_by_hand(self) -> None:
        """One sample a side: where the text did not grow it gained 2, and where it grew by 2 it gained nothing."""
        prompt, is_after = np.array([0, 1, 0, 1]), np.array([False, False, True, True])
        found = gain_at_equal_length(
            prompt, is_after, np.array([1.0, 1.0, 3.0, 1.0]), np.array([2.0, 2.0, 2.0, 4.0]), 10, 0.9, 0
        )
        assert found is not None
        assert found[0] == pytest.approx(2)

    def test_is_the_plain_gain_where_all_lengths_are_equal(self) -> None:
        """Prompts of 1 and of 3 samples count alike."""
        prompt, is_after = np.array([0, 1, 1, 1, 0, 1]), np.array([False, False, False, False, True, True])
        values = np.array([0.0, 1.0, 2.0, 3.0, 1.0, 5.0])
        found = gain_at_equal_length(prompt, is_after, values, np.full(6, 7.0), 200, 0.9, 0)
        assert found == (2.0, (1.0, 3.0))

    def test_none_where_every_text_grew_by_the_same(self) -> None:
        prompt, is_after = np.array([0, 1, 0, 1]), np.array([False, False, True, True])
        lengths = np.array([5.0, 6.0, 8.0, 9.0])
        assert gain_at_equal_length(prompt, is_after, np.array([0.0, 1.0, 2.0, 3.5]), lengths, 10, 0.9, 0) is None

    def test_a_value_that_is_not_finite_is_no_gain(self) -> None:
        prompt, is_after = np.array([0, 1, 0, 1]), np.array([False, False, True, True])
        found = gain_at_equal_length(
            prompt, is_after, np.array([0.0, np.nan, 1.0, 1.0]), np.array([1.0, 2.0, 3.0, 9.0]), 10, 0.9, 0
        )
        assert found is not None
        assert np.isnan([found[0], *found[1]]).all()

    def test_many_prompts_are_drawn_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        samples = samples_of(np.random.default_rng(3), 30, gain=0.3, slope=0.1, growth=4)
        whole = gain_at_equal_length(*samples, 50, 0.9, 0)
        monkeypatch.setattr(statistics, "_CHUNK", 200)
        assert gain_at_equal_length(*samples, 50, 0.9, 0) == whole
