"""The frontier: reward against KL of many trainings on their way (arXiv 2305.18290, section 6.1), and the ceiling."""

import json
import time
from functools import partial
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel

from alignment.config import AlignConfig, FrontierConfig, PointConfig, frontier_configs
from alignment.config.label import label
from alignment.errors import PlumblineError, TrainingError
from alignment.judging.frontier import FrontierPoint
from alignment.judging.frontier_table import point_row
from alignment.stages.store import StageRef
from flows.align import compute_all, tracked
from flows.form import config_flow
from flows.points import FAULTS, is_own
from tasks import artifacts
from tasks.frontier import PAGE, Found, Gathered, in_words, log_points, points_of, record, standing_in_words
from tasks.home import home
from tasks.pipeline import FRONTIER
from tasks.progress import Event, Points
from tasks.registry import runs
from tasks.registry.downloads import with_local_models
from tasks.run_page import page_of_run
from tasks.running import tell


class FrontierResult(BaseModel):
    """What a finished frontier reports: its points, what needs no training, and what became of each training."""

    run_id: str
    where: str
    page: str
    found: list[dict[str, Any]]
    """As `tasks.frontier.Found` has it, in JSON's values; one for each reward, as seeds may have one of their own."""
    failed: dict[str, str] = {}
    """Trainings that diverged or whose policy could not be measured, each with the reason."""
    told: str = ""
    """The best within a KL of 3, and whether both KLs agree, in words."""

    @property
    def curves(self) -> list[Found]:
        """What was found, as points and curves."""
        return list(map(Found.of, self.found))


@config_flow("frontier", lambda config: f"frontier {config.registry.model_name}")
def frontier(config: AlignConfig, frontier: FrontierConfig = FrontierConfig()) -> FrontierResult | State[Any]:  # noqa: B008 - Prefect draws its form from it
    """Train one policy per point, and measure each on its way: reward against KL, beside the ceiling and best-of-n.

    A point whose training diverges, or whose policy cannot be measured, is told of, and the frontier goes on. Nothing
    is registered.
    """
    configs = frontier_configs(config, frontier)
    result = tracked(config, partial(run_points, configs=configs))
    return Completed(message=result.told, data=result)


def run_points(config: AlignConfig, run_id: str, configs: list[PointConfig]) -> FrontierResult:
    """Every training as a child of the MLflow run `run_id`, which gets the figure, the page and all points.

    A fault in front of the policy ends all trainings of its seed, which share it. Raises the error where no training
    came to its end, or a TrainingError with all of them where they differ.
    """
    runs.tag(run_id, {runs.FRONTIER: run_id})
    points: list[FrontierPoint] = []
    gathered = Gathered()
    failed: dict[str, PlumblineError] = {}
    lost: dict[int, PlumblineError] = {}
    began = time.monotonic()
    for number, given in enumerate(configs, 1):
        named = f"{label(given)}, seed {given.seed}"
        if given.seed in lost:
            failed[named] = lost[given.seed]
            continue
        tell(Event(f"point {number} of {len(configs)}: {named}", "heading"))
        place = Points(done=number - 1, of=len(configs), spent=time.monotonic() - began)
        refs: dict[str, StageRef] = {}
        try:
            own = follow(given, named, run_id, place, refs)
        except FAULTS as error:
            failed[named] = error
            if not is_own(FRONTIER, given, refs, "trajectory"):
                lost[given.seed] = error
            continue
        points += own
        gathered.add(given, own, refs)
        record(run_id, gathered.found, config)
    if not points:
        reasons = {str(error): error for error in failed.values()}
        raise (
            reasons.popitem()[1]
            if len(reasons) == 1
            else TrainingError(f"every training of the frontier failed: {'; '.join(reasons)}")
        )
    told = in_words(gathered.found)
    table = [point_row(point, points) for point in points]
    artifacts.show("frontier", json.dumps(table), told, "table")
    runs.measured(run_id, told)
    if page := page_of_run():
        page.outcome = told
    return FrontierResult(
        run_id=run_id,
        where=runs.run_url(run_id),
        page=runs.artifact_url(run_id, PAGE),
        found=[found.rows() for found in gathered.found],
        failed={name: str(error) for name, error in failed.items()},
        told=told,
    )


def follow(
    given: PointConfig, named: str, parent: str, place: Points, refs: dict[str, StageRef]
) -> list[FrontierPoint]:
    """One training as a child run; returns its policies in the order of their steps, `refs` gets its stages."""
    with runs.run(given, run_name=named, tags={"mlflow.parentRunId": parent, runs.FRONTIER: parent}) as child:
        local, lineage = with_local_models(given, home() / "models")
        runs.tag(child, lineage)
        compute_all(FRONTIER, local, child, points=place, refs=refs)
        points = points_of(given, refs)
        log_points(child, points)
        runs.measured(child, standing_in_words(points[-1]))
    return points
