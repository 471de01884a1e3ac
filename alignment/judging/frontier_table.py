"""What is read off a frontier, as rows of a table: the best reward within each KL, and how near the ceiling it is."""

from collections.abc import Iterable, Sequence

from alignment.judging.formats import NONE, percent, plain, signed
from alignment.judging.frontier import (
    LIMITS,
    CurvePoint,
    FrontierPoint,
    Reference,
    drop_after_peak,
    fraction_of_ceiling,
    trajectories,
)


def name_of(point: FrontierPoint, among: Iterable[FrontierPoint]) -> str:
    """What was trained, as people write it: loss, divergence where they differ, and beta."""
    return f"{method_of(point, among)}, β {point.beta:g}"


def step_of(point: FrontierPoint, among: Iterable[FrontierPoint]) -> str:
    """One policy: what was trained, at which learning rate and from which seed where those differ, and its step."""
    several = list(among)
    more = [
        f"{title} {getattr(point, field):g}"
        for title, field in (("lr", "learning_rate"), ("seed", "seed"))
        if len({getattr(each, field) for each in several}) > 1
    ]
    return ", ".join([name_of(point, several), *more, f"step {point.step}"])


def method_of(point: FrontierPoint, among: Iterable[FrontierPoint]) -> str:
    """The loss, and the divergence where there are several."""
    divergence = f", {words(point.divergence)}" if len({each.divergence for each in among}) > 1 else ""
    return f"{words(point.loss)}{divergence}"


def words(name: str) -> str:
    """A name of the configuration in words."""
    return name.replace("_", " ")


def with_error(value: float, error: float) -> str:
    """A signed value and its standard error."""
    return f"{signed(value)} ± {plain(error)}"


def reward_rows(
    points: Sequence[FrontierPoint],
    ceiling: Sequence[CurvePoint],
    best_of: Sequence[CurvePoint],
    reference: Reference,
    limits: Sequence[float] = LIMITS,
) -> list[dict[str, str]]:
    """For each limit of the KL the best point within it, best-of-n, the ceiling, and the fraction of it in percent.

    The fraction is of the gain over the reference, as `fraction_of_ceiling` says. `~` marks a ceiling that is not
    trusted.
    """
    return [_reward_row(points, ceiling, best_of, reference, limit) for limit in limits]


def drop_rows(points: Sequence[FrontierPoint]) -> list[dict[str, str]]:
    """For each training with several steps its highest reward, where that was, and how far the reward fell again."""
    rows = []
    for training in trajectories(points):
        judged = [point for point in training if point.placed]
        if len(judged) > 1:
            peak, last, drop = drop_after_peak(judged)
            rows.append(
                {
                    "trained": name_of(peak, points),
                    "learning rate": f"{peak.learning_rate:g}",
                    "seed": str(peak.seed),
                    "highest reward": with_error(peak.reward, peak.reward_se),
                    "at step": str(peak.step),
                    "at KL": plain(peak.kl),
                    "last step": str(last.step),
                    "fell by": plain(drop),
                    "last KL": plain(last.kl),
                    "gates": gates_of(last),
                }
            )
    return rows


def point_row(point: FrontierPoint, among: Sequence[FrontierPoint]) -> dict[str, str]:
    """All that is known of a point, in words."""
    return {
        "trained": name_of(point, among),
        "step": str(point.step),
        "learning rate": f"{point.learning_rate:g}",
        "seed": str(point.seed),
        "reward": with_error(point.reward, point.reward_se),
        "KL": f"{plain(point.kl)} ± {plain(point.kl_se)}",
        "KL, sampled": f"{plain(point.kl_sampled)} ± {plain(point.kl_sampled_se)}",
        "KL per token": plain(point.kl_per_token, 3),
        "perplexity ratio": plain(point.perplexity_ratio),
        "entropy": plain(point.entropy),
        "distinct-2": plain(point.distinct_2),
        "gates": gates_of(point),
    }


def gates_of(point: FrontierPoint) -> str:
    """What the gates made of a point."""
    return "passed" if point.passed else f"refused by {', '.join(map(words, point.refused_by)) or 'the gates'}"


def _reward_row(
    points: Sequence[FrontierPoint],
    ceiling: Sequence[CurvePoint],
    best_of: Sequence[CurvePoint],
    reference: Reference,
    limit: float,
) -> dict[str, str]:
    _, point, highest, fraction, trusted = fraction_of_ceiling(points, ceiling, reference, limit)
    doubt = "" if trusted else "~"
    within = max((each for each in best_of if each.kl <= limit), key=lambda each: each.reward, default=None)
    return {
        "KL at most": f"{limit:g}",
        "best reward": NONE if point is None else with_error(point.reward, point.reward_se),
        "of": NONE if point is None else step_of(point, points),
        "its KL": NONE if point is None else plain(point.kl),
        "gates": NONE if point is None else gates_of(point),
        "best of n": NONE if within is None else f"{signed(within.reward)} (n = {within.setting:g})",
        "ceiling": NONE if highest is None else f"{doubt}{signed(highest)}",
        "of the ceiling": NONE if fraction is None else f"{doubt}{percent(fraction)}",
    }
