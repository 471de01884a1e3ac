"""A frontier's trainings as points, what needs no training, and what MLflow keeps of both."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from prefect import task

from alignment.config import AlignConfig, PointConfig
from alignment.errors import ScoreError
from alignment.judging.formats import NONE, percent
from alignment.judging.frontier import CurvePoint, FrontierPoint, Reference, Share, agree, fraction_of_ceiling
from alignment.judging.frontier_table import step_of
from alignment.rows import SCORES
from alignment.stages import evaluating
from alignment.stages.stage import Refs
from alignment.stages.trajectory_report import OF_BASE, STANDINGS
from tasks.registry import records, runs
from tasks.running import RETRIES

CURVE = "Frontier/"
"""How the metrics of a training's evaluations begin in MLflow, each by the step that it was measured at."""
CURVED = ("reward", "reward_se", "kl", "kl_se", "kl_sampled", "kl_sampled_se", "perplexity_ratio", "kl_per_token")

PAGE = runs.FRONTIER_PAGE
"""The page, as an artifact."""

NEAR = 3.0
"""The KL, in nats, within which the best policy is told of."""


@dataclass(frozen=True)
class Found:
    """All that a frontier is drawn from: its points, all by the same reward, and what needs no training."""

    points: tuple[FrontierPoint, ...]
    ceiling: tuple[CurvePoint, ...]
    best_of_n: tuple[CurvePoint, ...]
    reference: Reference

    @property
    def seeds(self) -> str:
        """The seeds of its points, in words."""
        found = sorted({point.seed for point in self.points})
        return f"seed{'s' * (len(found) > 1)} {', '.join(map(str, found))}"

    def share(self, limit: float) -> Share:
        """How much of what is possible within a KL its best policy has gained."""
        return fraction_of_ceiling(self.points, self.ceiling, self.reference, limit)

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


class Gathered:
    """What was found so far, one `Found` for each reward: numbers of two rewards are set beside each other nowhere.

    Seeds share a reward that was given; one that is trained is another for each seed, with units of its own.
    """

    def __init__(self) -> None:
        """Nothing."""
        self._seeds: dict[tuple[str, ...], dict[int, Refs]] = {}
        self._found: dict[tuple[str, ...], Found] = {}

    def add(self, config: PointConfig, points: Sequence[FrontierPoint], refs: Refs) -> None:
        """The policies of a training. What needs no training is computed where its seed is new, and not again."""
        reward = tuple(refs[name].digest for name in ("reward", *evaluating.scaled(config)))
        seeds = self._seeds.setdefault(reward, {})
        found = self._found.get(reward)
        before = found.points if found else ()
        if found is None or config.seed not in seeds:
            found = untrained(config, [*seeds.values(), refs])
            seeds[config.seed] = refs
        self._found[reward] = replace(found, points=(*before, *points))

    @property
    def found(self) -> list[Found]:
        """Each reward's, in the order in which they came."""
        return list(self._found.values())


def untrained(config: PointConfig, seeds: Sequence[Refs]) -> Found:
    """The curves by the references' samples, before any point; each seed has a reference of its own.

    The reference's own reward is that of these samples too: the ceiling begins there. What depends on how many there
    are, as distinct-2 does, is of as many as a policy draws. Raises ScoreError where too few samples have a reward.
    """
    import numpy as np

    from alignment.judging.ceiling import best_of_n, ceiling, spread_betas, spread_ns
    from alignment.judging.trajectory import over_prompts, reward_matrix

    ids: list[str] = []
    values: list[float] = []
    for number, refs in enumerate(seeds):
        for batch in SCORES.batches(refs["reference_samples"].path, ["prompt_id", "reward"]):
            ids += (f"{number} {prompt}" for prompt in batch["prompt_id"].to_pylist())
            values += batch["reward"].to_numpy().tolist()  # nan for none
    rewards, left_out = reward_matrix(ids, np.array(values))
    prompts, samples = rewards.shape
    if min(prompts, samples) < 2:
        raise ScoreError(
            f"reward.kind = {config.reward.kind}: {prompts} held-out {'prompt has' if prompts == 1 else 'prompts have'}"
            f" a score for {samples} of the reference's samples, and the ceiling needs two prompts with two each; raise"
            " frontier.held_out or frontier.ceiling_samples where that is 1, else find out why the reward gives none"
        )
    reward, error = over_prompts(rewards.ravel(), np.arange(prompts).repeat(samples))
    betas = sorted({*spread_betas(rewards), *config.frontier.betas}, reverse=True)
    return Found(
        (),
        tuple(ceiling(rewards, betas)),
        tuple(best_of_n(rewards, spread_ns(samples))),
        replace(
            _mean([_reference(refs) for refs in seeds]),
            reward=reward,
            reward_se=error,
            prompts=prompts,
            samples=samples,
            left_out=left_out,
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
def record(run_id: str, found: Sequence[Found], config: AlignConfig) -> None:
    """What has been found so far, in the frontier's MLflow run: the points as JSON, and each reward's figure and page.

    Those of the first reward have the plain names, all others their seed behind it.
    """
    from alignment.judging.frontier_page import frontier_page
    from alignment.judging.frontier_plot import TITLE, frontier_figure

    data = ", ".join(source.path for source in config.data.mixture) or config.data.path
    records.log_json(run_id, "frontier.json", [each.rows() for each in found])
    for number, each in enumerate(found):
        curves = each.points, each.ceiling, each.best_of_n, each.reference
        facts, title, stem = {"Model": config.registry.model_name, "Data": data}, TITLE, PAGE.removesuffix(".html")
        if len(found) > 1:
            title = f"{TITLE}, {each.seeds}"
            facts["Shown"] = f"{each.seeds}; other seeds' rewards have scales of their own, and so pages of their own"
        if number:
            stem += f"-seed-{min(point.seed for point in each.points)}"
        records.log_text(run_id, f"{stem}.html", frontier_page(*curves, config.gates, title=title, facts=facts))
        records.log_figures(run_id, {stem: frontier_figure(*curves, config.gates, title=title)})


def in_words(found: Sequence[Found]) -> str:
    """The best policy within a KL of 3, how near the ceiling it is, and whether both estimates of the KL agree.

    Where the rewards of seeds differ there is no best among them: of each it is told how near it is, and the mean.
    """
    points = [point for each in found for point in each.points]
    both, count, trainings = agree(points), len(points), len({point.trajectory for point in points})
    told = f"{count} {'policy' if count == 1 else 'policies'} of {trainings} training{'s' * (trainings > 1)}"
    shares = [each.share(NEAR) for each in found]
    if len(found) > 1:
        mean = mean_share(shares)
        if mean.fraction is not None:
            parts = [f"{told_share(share)} with {each.seeds}" for each, share in zip(found, shares, strict=True)]
            told += (
                f"; of the gain that is possible within {NEAR:g} nats the best policy has {', '.join(parts)}: "
                f"{told_share(mean)} in the mean"
            )
        told += ". Each seed's reward has a scale of its own, so rewards of two seeds do not compare"
    elif (share := shares[0]).point is not None:
        told += f"; the best within {NEAR:g} nats is {standing_in_words(share.point, points)}"
        if share.fraction is not None:
            told += f", {told_share(share)} of the gain that is possible"
    if not both.holds:
        told += (
            f". The exact and the sampled KL disagree, by up to {both.largest:.1f} standard errors: do not trust either"
        )
    return f"{told}."


def told_share(share: Share, doubt: str = "about ") -> str:
    """The fraction of a share in percent, behind `doubt` where its ceiling is not trusted."""
    return NONE if share.fraction is None else f"{'' if share.trusted else doubt}{percent(share.fraction)}"


def mean_share(shares: Sequence[Share]) -> Share:
    """The mean of several rewards' fractions; None where one has none."""
    fractions = [share.fraction for share in shares if share.fraction is not None]
    mean = sum(fractions) / len(fractions) if len(fractions) == len(shares) else None
    return Share(shares[0].limit, None, None, mean, all(share.trusted for share in shares))


def standing_in_words(point: FrontierPoint, among: Sequence[FrontierPoint] = ()) -> str:
    """A policy, named so that it is told from others, with its reward and its KL, and which gates refuse it."""
    gates = "every gate passed" if point.passed else f"refused by {', '.join(point.refused_by)}"
    return (
        f"{step_of(point, among)}: reward {point.reward:+.2f} ± {point.reward_se:.2f} "
        f"at a KL of {point.kl:.2f} ± {point.kl_se:.2f} ({gates})"
    )


def _reference(refs: Refs) -> Reference:
    return Reference.of(json.loads((refs["trajectory_report"].path / OF_BASE).read_text(encoding="utf-8")))


def _mean(found: Sequence[Reference]) -> Reference:
    """Of several seeds' references, each figure's mean."""
    names = [field.name for field in fields(Reference)]
    return Reference(**{name: sum(getattr(each, name) for each in found) / len(found) for name in names})
