"""A grid over loss, beta and learning rate: every point is judged, and the best that passes becomes the challenger."""

import json
import time
from functools import partial
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel

from alignment.config import AlignConfig, GridConfig
from alignment.config.label import label
from alignment.judging.grid import Point, best_point, grid_configs, point_rows
from alignment.stages.store import StageRef
from flows.align import AlignResult, Judged, judge_policy, publish, tracked
from flows.form import config_flow
from flows.points import FAULTS, is_own
from tasks import artifacts
from tasks.evaluation import read_report
from tasks.pipeline import PIPELINE
from tasks.progress import Event, Points
from tasks.refusals import announce_refused_sweep
from tasks.registry import records, runs
from tasks.run_page import page_of_run
from tasks.running import tell


class SweepResult(BaseModel):
    """What a finished sweep reports: one row per point, and the result of the best one, None where none passed."""

    run_id: str
    where: str
    points: list[dict[str, str]]
    best: AlignResult | None
    told: str = ""
    """How many points passed, and what became of the best, in words."""


@config_flow("sweep", lambda config: f"sweep {config.registry.model_name}")
def sweep(config: AlignConfig, grid: GridConfig = GridConfig()) -> SweepResult | State[Any]:  # noqa: B008 - Prefect draws its form from it
    """Train and judge one policy per point of the grid, on the same pairs; the surest gain of those that pass wins.

    A point whose training diverges, or whose policy cannot be measured, is a row of the table, and the sweep goes on.
    """
    configs = grid_configs(config, grid)
    result = tracked(config, partial(run_grid, configs=configs))
    return Completed(name="Completed" if result.best else "Refused", message=result.told, data=result)


def run_grid(config: AlignConfig, run_id: str, configs: list[AlignConfig]) -> SweepResult:
    """Every point as a child of the MLflow run `run_id`, which gets the table and the plot."""
    from alignment.judging.plots import reward_against_kl

    points: list[Point] = []
    judged: dict[str, tuple[AlignConfig, Judged]] = {}
    began = time.monotonic()
    for number, given in enumerate(configs, 1):
        tell(Event(f"point {number} of {len(configs)}: {label(given)}", "heading"))
        place = Points(done=len(points), of=len(configs), spent=time.monotonic() - began)
        point, outcome = try_point(given, run_id, place)
        points.append(point)
        if outcome is not None:
            judged[point.run_id] = (given, outcome)
    rows = point_rows(points)
    records.log_json(run_id, "sweep.json", rows)
    if judged:
        records.log_figures(run_id, {"reward_against_kl": reward_against_kl(points, config.gates.max_kl_per_token)})
    best = best_point(points)
    told = f"{sum(point.passed for point in points)} of {len(points)} points passed"
    result = None
    if best is not None:
        result = publish(*judged[best.run_id], best.run_id)
        is_challenger = result.model is not None and config.registry.alias in result.model["aliases"]
        role = config.registry.alias if is_challenger else "surest"
        told += f"; the {role} is {best.loss}, {best.short}: {result.registered}"
    else:
        announce_refused_sweep(config.registry.model_name, told, runs.run_url(run_id))
    artifacts.show("sweep", json.dumps(rows), told, "table")
    runs.conclude(run_id, "pass" if best else "fail", told)
    if page := page_of_run():
        page.outcome = told
    return SweepResult(run_id=run_id, where=runs.run_url(run_id), points=rows, best=result, told=told)


def try_point(config: AlignConfig, parent: str, place: Points) -> tuple[Point, Judged | None]:
    """One point as a child run; a fault of its policy ends the point, anything else the sweep.

    `place` says which one it is.
    """
    dpo = config.dpo
    refs: dict[str, StageRef] = {}
    try:
        with runs.run(config, run_name=label(config), tags={"mlflow.parentRunId": parent}) as run_id:
            outcome = judge_policy(config, run_id, points=place, refs=refs)
    except FAULTS as error:
        if not is_own(PIPELINE, config, refs, "policy"):
            raise
        return Point(dpo.loss, dpo.beta, dpo.learning_rate, "", None, None, str(error)), None
    report, judgement = read_report(outcome.refs["report"]), outcome.judgement
    return Point(dpo.loss, dpo.beta, dpo.learning_rate, run_id, report, judgement, judgement.sentence), outcome
