"""The frontier as data: policies by their reward and their distance from the reference, and what is read off them.

Rewards are in the reward's own units. A KL is KL(policy || reference) of a whole completion, in nats.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from statistics import NormalDist
from typing import Any, NamedTuple, Self, TypeVar

LIMITS = (1.0, 2.0, 3.0, 5.0, 10.0)
"""The KLs at which a frontier is read."""

VIEW = 15.0  # nats that are always shown
ROUNDING = 1e-3  # nats by which sums of log-probs in fp32 may differ
CHANCE = 0.01  # that one of all points disagrees although every estimate is right

Plain = dict[str, Any]
"""Values that JSON and Parquet have; what is not finite is None."""


class _Row:
    """To a row of plain values, and back."""

    def row(self) -> Plain:
        """Its fields as plain values."""
        return {name: _plain(value) for name, value in asdict(self).items()}  # type: ignore[call-overload]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """What `row` wrote; a number that is missing there is nan. Raises TypeError where a field is unknown."""
        numbers = {field.name for field in fields(cls) if field.type is float}  # type: ignore[arg-type]
        values = {name: math.nan if value is None and name in numbers else value for name, value in row.items()}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True)
class FrontierPoint(_Row):
    """One policy at one step of its training, judged by its own samples on the held-out prompts at temperature 1.

    `reward` and both KLs are means over prompts with their standard errors over prompts. `kl` is exact over the
    vocabulary at each position, summed over the positions of each of the policy's samples; `kl_sampled` is the mean of
    log policy - log reference of the same samples. `refused_by` names the gates that it does not pass.
    """

    loss: str
    divergence: str
    beta: float
    learning_rate: float
    seed: int
    step: int
    reward: float
    reward_se: float
    kl: float
    kl_se: float
    kl_sampled: float
    kl_sampled_se: float
    entropy: float  # of its tokens, as the metric `entropy`
    distinct_2: float
    perplexity_ratio: float  # of its samples under the reference, over that of the reference's own
    kl_per_token: float
    passed: bool
    refused_by: tuple[str, ...] = ()

    @property
    def trajectory(self) -> tuple[str, str, float, float, int]:
        """What all steps of one training share."""
        return self.loss, self.divergence, self.beta, self.learning_rate, self.seed

    @property
    def placed(self) -> bool:
        """Whether both its reward and its KL are finite."""
        return math.isfinite(self.reward) and math.isfinite(self.kl)


@dataclass(frozen=True)
class Reference(_Row):
    """The reference's own samples on the same held-out prompts: where every trajectory starts, at a KL of 0."""

    reward: float
    reward_se: float
    entropy: float
    distinct_2: float
    tokens: float  # mean length of a completion
    prompts: int
    samples: int  # of each prompt, that the reward is the mean of
    left_out: int = 0  # prompts, as too few of their samples have a reward


@dataclass(frozen=True)
class CurvePoint(_Row):
    """One point of a curve that needs no training: of the ceiling (`setting` is beta) or of best-of-n (n).

    `kl_se` is 0 where the KL is a bound. `effective_samples` is the mean over prompts; `trusted` says whether these are
    enough for the estimate to be believed.
    """

    setting: float
    kl: float
    kl_se: float
    reward: float
    reward_se: float
    effective_samples: float
    trusted: bool


AnyPoint = TypeVar("AnyPoint", FrontierPoint, CurvePoint)


class Share(NamedTuple):
    """How much of what is possible within a KL of `limit` the best point within it has gained.

    `fraction` is (reward of the point - reward of the reference) / (`ceiling` - reward of the reference), where
    `ceiling` is the ceiling's reward at a KL of `limit`, not at the point's own: a point that stays well below the
    limit is told what the rest of it could have given. None stands where no point is within the limit, or the ceiling
    does not reach that far; `trusted` says whether its samples suffice there.
    """

    limit: float
    point: FrontierPoint | None
    ceiling: float | None
    fraction: float | None
    trusted: bool


class Drop(NamedTuple):
    """What a training lost again: the point with its highest reward, its last point, and the difference of the two."""

    peak: FrontierPoint
    last: FrontierPoint
    drop: float


class Agreement(NamedTuple):
    """How well the two estimates of the KL agree, over so many points.

    `largest` is the largest difference in standard errors, and `bound` what that of so many points exceeds with a
    probability of one percent.
    """

    points: int
    largest: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether no point differs by more than chance explains."""
        return self.largest <= self.bound


def trajectories(points: Iterable[FrontierPoint]) -> list[tuple[FrontierPoint, ...]]:
    """The points of each training, in the order of its steps."""
    ordered = sorted(points, key=lambda point: (point.trajectory, point.step))
    return [tuple(found) for _, found in groupby(ordered, key=lambda point: point.trajectory)]


def pareto(points: Iterable[AnyPoint]) -> list[AnyPoint]:
    """The points that no other beats with at least its reward at no more of its KL, in the order of their KL."""
    best: list[AnyPoint] = []
    placed = (point for point in points if math.isfinite(point.reward) and math.isfinite(point.kl))
    for point in sorted(placed, key=lambda point: (point.kl, -point.reward)):
        if not best or point.reward > best[-1].reward:
            best.append(point)
    return best


def reward_at(points: Iterable[FrontierPoint], limits: Sequence[float] = LIMITS) -> dict[float, FrontierPoint | None]:
    """For each limit the point with the highest reward among those with a KL of at most that; None where none has.

    The best of many noisy rewards is a little above its true one: read it with its standard error.
    """
    line = pareto(points)
    return {limit: max((p for p in line if p.kl <= limit), key=lambda p: p.reward, default=None) for limit in limits}


def ceiling_at(ceiling: Iterable[CurvePoint], reference: Reference, kl: float) -> tuple[float | None, bool]:
    """The ceiling's reward at this KL, and whether it is trusted there; None beyond the curve's last point.

    Between two points, the reference at a KL of 0 being the first, it is linear in the root of the KL: exactly so for a
    reward with a normal distribution, whose ceiling is mean + SD sqrt(2 KL).
    """
    before = CurvePoint(math.inf, 0.0, 0.0, reference.reward, reference.reward_se, float(reference.samples), True)
    if kl <= 0:
        return before.reward, True
    for after in pareto(ceiling):
        if after.kl >= kl:
            start, end = math.sqrt(before.kl), math.sqrt(after.kl)
            share = (math.sqrt(kl) - start) / (end - start)
            return before.reward + share * (after.reward - before.reward), before.trusted and after.trusted
        before = after if after.kl > 0 else before
    return None, False


def fraction_of_ceiling(
    points: Iterable[FrontierPoint], ceiling: Sequence[CurvePoint], reference: Reference, limit: float = 3.0
) -> Share:
    """How much of the gain that is possible at a KL of `limit` the best point with a KL of at most that has: a `Share`.

    1 is the ceiling, 0 the reference. Above 1 it is by chance, or where the ceiling is not trusted.
    """
    point = reward_at(points, (limit,))[limit]
    highest, trusted = ceiling_at(ceiling, reference, limit)
    if point is None or highest is None or highest <= reference.reward:
        return Share(limit, point, highest, None, trusted)
    return Share(limit, point, highest, (point.reward - reference.reward) / (highest - reference.reward), trusted)


def allowed_kl(reference: Reference, max_kl_per_token: float) -> float:
    """The bound of the gate on the KL per token as one of a completion, at the mean length of the reference's own."""
    return max_kl_per_token * reference.tokens


def largest_shown(kls: Iterable[float], *, at_least: float) -> float:
    """How far an axis of KLs goes: to the largest, unless that is so far off that all others would be crowded."""
    room = max(VIEW, 2 * at_least)
    farthest = max(kls, default=0.0)
    return max(farthest, at_least) if farthest <= 1.5 * room else room


def drop_after_peak(points: Sequence[FrontierPoint]) -> Drop:
    """How far the reward of one training fell from its highest to its last step; a drop of 0 if it ended there.

    Raises ValueError for points of several trainings, or of none with a finite reward.
    """
    if len({point.trajectory for point in points}) > 1:
        raise ValueError("drop_after_peak: points of several trainings, give those of one")
    judged = sorted((point for point in points if math.isfinite(point.reward)), key=lambda point: point.step)
    if not judged:
        raise ValueError("drop_after_peak: no point with a finite reward")
    peak = max(judged, key=lambda point: point.reward)
    return Drop(peak, judged[-1], peak.reward - judged[-1].reward)


def agree(points: Iterable[FrontierPoint]) -> Agreement:
    """Whether the exact and the sampled KL of each point agree within their errors.

    A difference counts in units of the root of the sum of both squared standard errors, and of a rounding error of
    0.001 nats. That is cautious: both come from the same samples, so their errors mostly go together. Points without a
    finite KL are left out.
    """
    found = []
    for point in points:
        difference, error = abs(point.kl_sampled - point.kl), math.hypot(point.kl_se, point.kl_sampled_se, ROUNDING)
        if math.isfinite(difference) and math.isfinite(error):
            found.append(difference / error)
    bound = NormalDist().inv_cdf(1 - CHANCE / (2 * max(1, len(found))))
    return Agreement(len(found), max(found, default=0.0), bound)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return list(value) if isinstance(value, tuple) else value
