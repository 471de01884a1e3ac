"""The ceiling and best-of-n against optima that are known, over many seeds: the estimates, and how sure they say to be.

A bandit is a prompt whose completions are the arms: reference p, rewards r. Its optimum is p exp(r / beta) / Z, with
the reward R = sum p r exp(r / beta) / Z and the KL R / beta - log Z.
"""

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from alignment.judging.ceiling import MARGIN, best_of_n, ceiling, spread_betas, spread_ns

ARMS = np.array([0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
REWARDS = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0])
SEEDS = range(40)


def bandit(seed: int, prompts: int = 48, samples: int = 64) -> Any:
    return REWARDS[np.random.default_rng(seed).choice(ARMS.size, p=ARMS, size=(prompts, samples))]


def gaussian(seed: int, prompts: int = 48, samples: int = 64) -> Any:
    return np.random.default_rng(seed).normal(size=(prompts, samples))


def optimum(beta: float) -> tuple[float, float]:
    weights = ARMS * np.exp(REWARDS / beta)
    reward = float(weights @ REWARDS / weights.sum())
    return reward, reward / beta - math.log(weights.sum())


def errors(draw: Any, beta: float, reward: float, kl: float) -> Any:
    """How many standard errors each seed's estimates of reward and KL are off; shape (seeds, 2)."""
    found = [ceiling(draw(seed), [beta])[0] for seed in SEEDS]
    assert sum(point.trusted for point in found) > len(SEEDS) / 2
    return np.array([[(p.reward - reward) / p.reward_se, (p.kl - kl) / p.kl_se] for p in found])


def seldom_off(found: Any) -> None:
    """Within 2 standard errors for 95% of the seeds; 34 of 40 or fewer happen once in 50 times if that is so."""
    assert (np.abs(found) <= 2).sum(axis=0).min() >= 35


@pytest.mark.parametrize("beta", [4.0, 1.0, 0.7])
def test_the_optimum_of_a_bandit_is_found(beta: float) -> None:
    seldom_off(errors(bandit, beta, *optimum(beta)))


@pytest.mark.parametrize("kl", [0.05, 0.5, 1.2])
def test_the_optimum_of_a_gaussian_reward_is_found(kl: float) -> None:
    """With r ~ N(0, 1) the optimum is N(1 / beta, 1): reward 1 / beta, KL 1 / (2 beta^2). Its tail is the hard case."""
    reward = math.sqrt(2 * kl)
    seldom_off(errors(gaussian, 1 / reward, reward, kl))


def test_a_standard_error_is_not_much_too_large_where_samples_are_plenty() -> None:
    found = errors(lambda seed: bandit(seed, samples=128), 4.0, *optimum(4.0))
    assert (found.std(axis=0) > 0.7).all()


def test_prompts_of_unlike_difficulty_are_in_the_standard_error() -> None:
    """One beta for all: the prompts' rewards are shifted by N(0, 1), which moves no weight and no KL."""
    shift = np.random.default_rng(1).normal(size=(48, 1))
    same, unlike = ceiling(bandit(0), [1.0])[0], ceiling(bandit(0) + shift, [1.0])[0]
    assert unlike.kl == pytest.approx(same.kl)
    assert unlike.reward == pytest.approx(same.reward + shift.mean())
    assert unlike.reward_se == pytest.approx(math.hypot(same.reward_se, shift.std(ddof=1) / math.sqrt(48)), rel=0.15)


def test_by_hand() -> None:
    """Two prompts with rewards 0 and b log 2: weights 1/3 and 2/3, the sum of squares 5/9, mean exp 3/2.

    reward = 2/3 b log 2, KL = 2/3 log 2 - log 3/2. Each sample alone has its own reward and a KL of 0, so the jackknife
    gives twice the plain value less the mean of these: reward 4/3 b log 2 - 1/2 b log 2, KL twice the plain one.
    """
    point = ceiling([[0.0, 2 * math.log(2)]] * 2, [2.0])[0]
    assert point.effective_samples == pytest.approx(9 / 5)
    assert point.reward == pytest.approx((4 / 3 - 1 / 2) * 2 * math.log(2))
    assert point.kl == pytest.approx(2 * (2 / 3 * math.log(2) - math.log(1.5)))
    assert not point.trusted


def test_the_jackknife_is_that_of_samples_left_out_one_by_one() -> None:
    rewards, beta, samples = gaussian(3, 4, 9), 0.4, 9

    def plain(values: Any) -> Any:
        weights = np.exp(values / beta)
        reward = (weights * values).sum(axis=1) / weights.sum(axis=1)
        return np.stack([reward, reward / beta - np.log(weights.mean(axis=1))])

    without = np.mean([plain(np.delete(rewards, each, axis=1)) for each in range(samples)], axis=0)
    reward, kl = (samples * plain(rewards) - (samples - 1) * without).mean(axis=1)
    point = ceiling(rewards, [beta])[0]
    assert (point.reward, point.kl) == pytest.approx((reward, kl))


def test_what_few_samples_carry_is_not_trusted() -> None:
    points = ceiling(gaussian(0), [1.0, 0.8, 0.3, 0.1, 0.001])
    assert [point.trusted for point in points] == [True, True, False, False, False]
    assert points[-1].effective_samples == pytest.approx(1, abs=0.01)


def test_a_trusted_curve_is_near_the_true_one_and_reaches_farther_for_a_reward_without_a_tail() -> None:
    """A normal reward: sqrt(2 KL) at each KL. A bounded one has no tail that the samples could miss."""
    normal, bounded = gaussian(0, 128, 128), np.tanh(gaussian(0, 128, 128))
    curve = [point for point in ceiling(normal, spread_betas(normal, 20)) if point.trusted]
    for point in curve[4:]:
        assert point.reward == pytest.approx(math.sqrt(2 * point.kl), rel=0.05)
    other = [point for point in ceiling(bounded, spread_betas(bounded, 20)) if point.trusted]
    assert 2 < curve[-1].kl < other[-1].kl <= math.log(128) - MARGIN


def test_a_rare_reward_that_most_prompts_did_not_see_is_not_trusted_though_all_samples_count() -> None:
    """One completion in 160 is worth 3: of 64 samples two thirds of the prompts have none, so the mean KL is wrong."""
    rewards = gaussian(0, 64, 64)
    (point,) = ceiling(0.3 * rewards + 3.0 * (rewards > 2.5), [0.7])
    assert point.effective_samples > 20
    assert not point.trusted


def test_no_more_than_the_reference_is_possible_where_all_samples_are_equally_good() -> None:
    (point,) = ceiling(np.ones((3, 8)), [0.1])
    assert (point.reward, point.kl, point.effective_samples) == pytest.approx((1.0, 0.0, 8.0))
    assert spread_betas(np.ones((3, 8))) == []


def test_betas_are_spread_evenly_over_the_root_of_the_kl() -> None:
    rewards = gaussian(0, 64, 128)
    betas = spread_betas(rewards, points=10)
    roots = [math.sqrt(point.kl) for point in ceiling(rewards, betas)]
    assert betas == sorted(betas, reverse=True)
    assert np.diff(roots[:6]) == pytest.approx(roots[0], rel=0.25)
    assert roots[-1] > 2


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_best_of_n_is_the_mean_over_all_subsets(n: int) -> None:
    rewards = gaussian(7, 3, 5)
    expected = np.mean([rewards[:, list(subset)].max(axis=1) for subset in combinations(range(5), n)], axis=0)
    (point,) = best_of_n(rewards, [n])
    assert point.reward == pytest.approx(expected.mean())
    assert point.reward_se == pytest.approx(expected.std(ddof=1) / math.sqrt(3))
    assert point.effective_samples == pytest.approx(5 / n)


def test_the_best_of_n_of_a_bandit_is_found() -> None:
    """P(best <= r) = F(r)^n, so the mean of the best of 8 is the sum of r (F(r)^8 - F(r-)^8)."""
    below = np.cumsum(ARMS) ** 8
    expected = float(REWARDS @ np.diff(below, prepend=0.0))
    found = [best_of_n(bandit(seed), [8])[0] for seed in SEEDS]
    off = np.array([(point.reward - expected) / point.reward_se for point in found])
    assert (np.abs(off) <= 2).sum() >= 35
    assert 0.7 < off.std() < 1.4


def test_the_kl_of_best_of_n_is_its_bound() -> None:
    points = best_of_n(gaussian(0, 2, 64), spread_ns(64))
    assert [point.setting for point in points] == [1, 2, 4, 8, 16, 32, 64]
    assert [point.kl for point in points[:3]] == pytest.approx([0, math.log(2) - 0.5, math.log(4) - 0.75])


def test_best_of_n_is_below_the_ceiling() -> None:
    rewards = gaussian(0, 256, 128)
    curve = ceiling(rewards, spread_betas(rewards))
    for point in best_of_n(rewards, [2, 4, 8]):
        above = np.interp(point.kl, [each.kl for each in curve], [each.reward for each in curve])
        assert point.reward < above


def test_the_powers_of_two_end_at_the_samples() -> None:
    assert spread_ns(1) == [1]
    assert spread_ns(100) == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("rewards", [[1.0, 2.0], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_too_few_prompts_or_samples_are_refused(rewards: Any) -> None:
    with pytest.raises(ValueError, match="two or more samples of two or more prompts"):
        ceiling(rewards, [1.0])


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        best_of_n([[1.0, math.nan], [1.0, 2.0]], [1])
    with pytest.raises(ValueError, match="the best of 3 of 2 samples"):
        best_of_n([[1.0, 2.0], [1.0, 2.0]], [3])
    with pytest.raises(ValueError, match="beta 0 must be above 0"):
        ceiling([[1.0, 2.0], [1.0, 2.0]], [0.0])
