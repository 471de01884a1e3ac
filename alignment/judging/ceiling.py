"""What no training can beat: the most reward that is possible within a KL, and best-of-n, both from reference samples.

The policy that maximises E[r] - beta KL(policy || reference) is reference(y|x) exp(r(x, y) / beta) / Z(x) (Rafailov et
al. 2023, arXiv 2305.18290, equation 4). For its mean KL no policy has a higher mean reward, whatever it was trained
with: so over all beta these optima are a ceiling. Samples of the reference stand for it, weighted; nothing is trained.

Rewards are of shape (prompts, samples), of samples that the reference drew at temperature 1, and they have to be of the
reward that the pairs are labelled by.
"""

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from alignment.judging.frontier import CurvePoint

Array = npt.NDArray[np.float64]

MAX_CORRECTION = 0.03  # of the gain, by which the bias of a trusted point is corrected
MARGIN = 1.0  # nats by which a trusted KL is below log N
LARGEST_KL = 20.0  # of a curve, however many samples there are
GRID = 64  # betas that the KL is computed for, to find those of the curve in between


def ceiling(rewards: npt.ArrayLike, betas: Iterable[float]) -> list[CurvePoint]:
    """Mean reward and mean KL of the optimum for each beta, by self-normalised importance weights.

    Of a prompt's N samples each weighs w_i = exp(r_i / beta) / sum_j exp(r_j / beta); its reward is sum w_i r_i, its KL
    that reward / beta - log mean exp(r_i / beta), and its effective sample size 1 / sum w_i^2. N samples do not show
    what is rarer than one in N, so reward and KL both come out too low: the jackknife takes off the part of order 1/N.
    A standard error is over prompts, which includes what the samples of each prompt leave open, and to it the size of
    that correction is added in quadrature, since about as much may remain.

    Along the curve the reward rises by beta for each nat, so reward - beta KL = beta log mean exp(r / beta) tells how
    far a point is off it. A point is trusted if the correction of that is at most `MAX_CORRECTION` of the gain over the
    reference, and its KL at most log N - `MARGIN`, as a KL needs about its exponential in samples (Chatterjee and
    Diaconis 2018, arXiv 1511.01437).

    Raises ValueError for a beta that is not above 0, for fewer than two prompts or samples, and for a reward that is
    not finite.
    """
    values = _checked("ceiling", rewards)
    return [_optimum(values, _positive(beta)) for beta in betas]


def best_of_n(rewards: npt.ArrayLike, ns: Iterable[int]) -> list[CurvePoint]:
    """Mean reward of the best of n of a prompt's N samples, the mean over all subsets of n: unbiased for each n <= N.

    The KL is the bound log n - (n - 1) / n (Beirami et al. 2024, arXiv 2401.01879; Stiennon et al. 2020, arXiv
    2009.01325, use it as an equality), which is reached where no two samples are equally good. Standard errors are over
    prompts; `effective_samples` is N / n, so many groups of n there are that share no sample.

    Raises ValueError as `ceiling` does, and for an n outside of 1..N.
    """
    values = np.sort(_checked("best_of_n", rewards), axis=1)
    return [_best(values, n) for n in ns]


def spread_betas(rewards: npt.ArrayLike, points: int = 40) -> list[float]:
    """Betas whose optima are evenly spread over the root of the KL, as far as the samples reach; the largest first.

    Empty where no prompt has two different rewards. Raises ValueError as `ceiling` does.
    """
    values = _checked("spread_betas", rewards)
    spread = float((values.max(axis=1) - values.min(axis=1)).max())
    if spread == 0:
        return []
    grid = np.geomspace(spread * 1e3, spread * 1e-3, GRID)
    roots = np.maximum.accumulate([math.sqrt(_plain_kl(values, beta)) for beta in grid])
    wanted = np.linspace(0, min(roots[-1], math.sqrt(LARGEST_KL)), points + 2)[1:-1]
    return [float(beta) for beta in np.exp(np.interp(wanted, roots, np.log(grid)))]


def spread_ns(samples: int) -> list[int]:
    """The powers of two up to the number of samples of each prompt."""
    return [2**power for power in range(samples.bit_length())]


def _optimum(rewards: Array, beta: float) -> CurvePoint:
    samples = rewards.shape[1]
    lowest = rewards.min(axis=1, keepdims=True)
    logs = rewards / beta
    with np.errstate(divide="ignore"):
        above = logs + np.log(rewards - lowest)  # of exp(r / beta) (r - lowest); -inf for the lowest
    total = np.logaddexp.reduce(logs, axis=1, keepdims=True)

    def measured(part: Array, whole: Array, count: int) -> Array:
        """Reward and KL by the sums over some samples, as logarithms; shape (2, prompts, any)."""
        reward = lowest + np.exp(part - whole)
        return np.stack([reward, reward / beta - whole + math.log(count)])

    plain = measured(np.logaddexp.reduce(above, axis=1, keepdims=True), total, samples)[..., 0]
    without = measured(_all_others(above), _all_others(logs), samples - 1)
    corrected = samples * plain - (samples - 1) * without.mean(axis=-1)  # (2, prompts)
    reward, kl = corrected.mean(axis=1)
    correction = (corrected - plain).mean(axis=1)
    reward_se, kl_se = np.hypot(_over_prompts(corrected), correction)
    effective = float(np.exp(-np.logaddexp.reduce(2 * (logs - total), axis=1)).mean())
    off = abs(correction[0] - beta * correction[1])
    trusted = off <= MAX_CORRECTION * (reward - rewards.mean()) and kl <= math.log(samples) - MARGIN
    return CurvePoint(beta, float(kl), float(kl_se), float(reward), float(reward_se), effective, bool(trusted))


def _best(ordered: Array, n: int) -> CurvePoint:
    samples = ordered.shape[1]
    if not 1 <= n <= samples:
        raise ValueError(f"best_of_n: the best of {n} of {samples} samples; n is 1 to {samples}")
    everything = math.comb(samples, n)
    chances = np.array([math.comb(below, n - 1) / everything for below in range(samples)])  # that a rank is the best
    best = ordered @ chances
    bound = math.log(n) - (n - 1) / n
    return CurvePoint(n, bound, 0.0, float(best.mean()), float(_over_prompts(best)), samples / n, True)


def _all_others(logs: Array) -> Array:
    """For each sample the logarithm of the sum over all others of its prompt: shape (prompts, samples).

    From both sides, as a difference of sums loses all its digits where one sample has nearly all the weight.
    """
    none = np.full((logs.shape[0], 1), -np.inf)
    before = np.logaddexp.accumulate(logs[:, :-1], axis=1)
    after = np.logaddexp.accumulate(logs[:, :0:-1], axis=1)[:, ::-1]
    others: Array = np.logaddexp(np.hstack([none, before]), np.hstack([after, none]))
    return others


def _plain_kl(rewards: Array, beta: float) -> float:
    """The mean KL of the optimum, without the jackknife."""
    logs = (rewards - rewards.max(axis=1, keepdims=True)) / beta
    weights = np.exp(logs)
    total = weights.sum(axis=1)
    return max(0.0, float(((weights * logs).sum(axis=1) / total - np.log(total / rewards.shape[1])).mean()))


def _over_prompts(values: Array) -> Array:
    """The standard error of the mean over prompts, the last axis."""
    return np.asarray(values.std(axis=-1, ddof=1) / math.sqrt(values.shape[-1]))


def _positive(beta: float) -> float:
    if not (beta > 0 and math.isfinite(beta)):
        raise ValueError(f"ceiling: beta {beta:g} must be above 0 and finite")
    return beta


def _checked(name: str, rewards: npt.ArrayLike) -> Array:
    values = np.asarray(rewards, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"{name}: rewards of shape {values.shape}, give two or more samples of two or more prompts")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: rewards that are not finite; leave out the prompts whose samples have no score")
    return values
