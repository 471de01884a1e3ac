"""A frontier's trainings as points, what needs no training, and what MLflow keeps of both."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from prefect import task

from alignment.config import AlignConfig, PointConfig
from alignment.errors import ScoreError
from alignment.judging.formats import percent
from alignment.judging.frontier import CurvePoint, FrontierPoint, Reference, agree, fraction_of_ceiling
from alignment.judging.frontier_table import step_of
from alignment.rows import SCORES
from alignment.stages.stage import Refs
from alignment.stages.store import StageRef
from alignment.stages.trajectory_report import OF_BASE, STANDINGS
from tasks.registry import records, runs
from tasks.running import RETRIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CURVE = "Frontier/"
"""How the metrics of a training's evaluations begin in MLflow, each by the step that it was measured at."""
CURVED = ("reward", "reward_se", "kl", "kl_se", "kl_sampled", "kl_sampled_se", "perplexity_ratio", "kl_per_token")

PAGE = runs.FRONTIER_PAGE
"""The page, as an artifact."""

NEAR = 3.0
"""The KL, in nats, within which the best policy is told of."""


@dataclass(frozen=True)
class Found:
    """All that a frontier is drawn from: its points, and what needs no training."""

    points: tuple[FrontierPoint, ...]
    ceiling: tuple[CurvePoint, ...]
    best_of_n: tuple[CurvePoint, ...]
    reference: Reference

    def rows(self) -> dict[str, Any]:
        """The same as the values that JSON has."""
        curves = {"points": self.points, "ceiling": self.ceiling, "best_of_n": self.best_of_n}
        return {name: [point.row() for point in found] for name, found in curves.items()} | {
            "reference": self.reference.row()
        }

    @classmethod
    def of(cls, rows: Mapping[str, Any]) -> "Found":
        """What `rows` gave."""
        return cls(
            tuple(map(FrontierPoint.of, rows["points"])),
            tuple(map(CurvePoint.of, rows["ceiling"])),
            tuple(map(CurvePoint.of, rows["best_of_n"])),
            Reference.of(rows["reference"]),
        )


def points_of(config: PointConfig, refs: Refs) -> list[FrontierPoint]:
    """The policies of one training, in the order of their steps, each with what the gates make of it."""
    from alignment.judging.gates import judge
    from alignment.judging.trajectory import Standing, point

    text = (refs["trajectory_report"].path / STANDINGS).read_text(encoding="utf-8")
    found = [Standing.model_validate(each) for each in json.loads(text)]
    return [point(config, each, judge(each.report, config.gates)) for each in found]


def found_so_far(config: PointConfig, points: Sequence[FrontierPoint], seeds: Sequence[Refs]) -> Found:
    """The points beside the curves by the references' samples; each seed has a reference of its own.

    The reference's own reward is that of these samples too: the ceiling begins there. What depends on how many there
    are, as distinct-2 does, is of as many as a policy draws.
    """
    import numpy as np

    from alignment.judging.ceiling import best_of_n, ceiling, spread_betas, spread_ns
    from alignment.judging.trajectory import over_prompts

    rewards = np.concatenate([_rewards(refs["reference_samples"]) for refs in seeds])
    if len(rewards) < 2:
        raise ScoreError(
            f"reward.kind = {config.reward.kind}: {len(rewards)} held-out prompts have a score for each of the "
            "reference's samples, and the ceiling needs two; raise frontier.held_out where it is 1, else find out why "
            "the reward gives none, or lower frontier.ceiling_samples"
        )
    reward, error = over_prompts(rewards.ravel(), np.arange(len(rewards)).repeat(rewards.shape[1]))
    betas = sorted({*spread_betas(rewards), *config.frontier.betas}, reverse=True)
    return Found(
        tuple(points),
        tuple(ceiling(rewards, betas)),
        tuple(best_of_n(rewards, spread_ns(rewards.shape[1]))),
        replace(
            _mean([_reference(refs) for refs in seeds]),
            reward=reward,
            reward_se=error,
            prompts=len(rewards),
            samples=rewards.shape[1],
        ),
    )


@task(name="record training", **RETRIES)
def log_points(run_id: str, points: Sequence[FrontierPoint]) -> None:
    """The evaluations of one training as curves of its MLflow run, and as they are in `points.json`."""
    rows = [point.row() for point in points]
    curves = [
        {"step": row["step"], **{f"{CURVE}{name}": row[name] for name in CURVED if row[name] is not None}}
        for row in rows
    ]
    records.complete_history(run_id, curves)
    records.log_json(run_id, "points.json", rows)


@task(name="record frontier", **RETRIES)
def record(run_id: str, found: Found, config: AlignConfig) -> None:
    """What has been found so far, in the frontier's MLflow run: the points as JSON, the figure, and the page."""
    from alignment.judging.frontier_page import frontier_page
    from alignment.judging.frontier_plot import frontier_figure

    curves = found.points, found.ceiling, found.best_of_n, found.reference
    data = ", ".join(source.path for source in config.data.mixture) or config.data.path
    facts = {"Model": config.registry.model_name, "Data": data}
    records.log_json(run_id, "frontier.json", found.rows())
    records.log_text(run_id, PAGE, frontier_page(*curves, config.gates, facts=facts))
    records.log_figures(run_id, {"frontier": frontier_figure(*curves, config.gates)})


def in_words(found: Found) -> str:
    """The best policy within a KL of 3, how near the ceiling it is, and whether both estimates of the KL agree."""
    share, both = fraction_of_ceiling(found.points, found.ceiling, found.reference, NEAR), agree(found.points)
    trainings = len({point.trajectory for point in found.points})
    count = len(found.points)
    told = f"{count} {'policy' if count == 1 else 'policies'} of {trainings} training{'s' * (trainings > 1)}"
    if share.point is not None:
        told += f"; the best within {NEAR:g} nats is {standing_in_words(share.point, found.points)}"
    if share.fraction is not None:
        told += f", {'' if share.trusted else 'about '}{percent(share.fraction)} of the gain that is possible"
    if not both.holds:
        told += (
            f". The exact and the sampled KL disagree, by up to {both.largest:.1f} standard errors: do not trust either"
        )
    return f"{told}."


def standing_in_words(point: FrontierPoint, among: Sequence[FrontierPoint] = ()) -> str:
    """A policy, named so that it is told from others, with its reward and its KL, and which gates refuse it."""
    gates = "every gate passed" if point.passed else f"refused by {', '.join(point.refused_by)}"
    return (
        f"{step_of(point, among)}: reward {point.reward:+.2f} ± {point.reward_se:.2f} "
        f"at a KL of {point.kl:.2f} ± {point.kl_se:.2f} ({gates})"
    )


def _rewards(samples: StageRef) -> "NDArray[np.float64]":
    """Rewards [prompts, N] of the reference's samples."""
    import numpy as np

    from alignment.judging.trajectory import reward_matrix

    ids: list[str] = []
    rewards: list[float] = []
    for batch in SCORES.batches(samples.path, ["prompt_id", "reward"]):
        ids += batch["prompt_id"].to_pylist()
        rewards += batch["reward"].to_numpy().tolist()  # nan for none
    return reward_matrix(ids, np.array(rewards))[0]


def _reference(refs: Refs) -> Reference:
    return Reference.of(json.loads((refs["trajectory_report"].path / OF_BASE).read_text(encoding="utf-8")))


def _mean(found: Sequence[Reference]) -> Reference:
    """Of several seeds' references, each figure's mean."""
    names = [field.name for field in fields(Reference)]
    return Reference(**{name: sum(getattr(each, name) for each in found) / len(found) for name in names})
