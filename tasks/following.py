"""The progress of the run at work: made of its plan and of earlier runs, and known to every thread of the run."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from alignment.config import AlignConfig
from alignment.stages.plan import Pipeline
from alignment.stages.stage import Stage
from tasks import estimates
from tasks.home import store
from tasks.pipeline import PIPELINE
from tasks.progress import ALONE, Points, Progress, StageProgress
from tasks.run_log import run_logger
from tasks.run_page import page_of_run

_PROGRESS: ContextVar[Progress | None] = ContextVar("_PROGRESS", default=None)


def progress_of_run() -> Progress | None:
    """The progress of the run that this is called in; None outside of any."""
    return _PROGRESS.get()


@contextmanager
def following(progress: Progress) -> Iterator[Progress]:
    """Let every event of a stage inside be noted by `progress`, and the run's page show it."""
    token = _PROGRESS.set(progress)
    if page := page_of_run():
        page.progress = progress
    try:
        yield progress
    finally:
        progress.stop()
        _PROGRESS.reset(token)


def expected_progress(
    config: AlignConfig, goal: str = "", *, points: Points = ALONE, pipeline: Pipeline = PIPELINE
) -> Progress:
    """The stages that a configuration asks for, none begun, each with the seconds that it takes by earlier runs.

    What the store has takes none. `points` says which of a sweep's points they are of.
    """
    planned = pipeline.plan(config, store(), goal)
    bases = store().earlier("base")
    base = PIPELINE["base"].reads(config)
    return Progress(
        [
            StageProgress(
                item.stage.name,
                item.stage.title,
                trains=item.stage.trains(config),
                expected=0.0 if item.found else _expected(item.stage, config, base, bases),
            )
            for item in planned
        ],
        points=points,
    )


def _expected(stage: Stage, config: AlignConfig, base: Any, bases: list[dict[str, Any]]) -> float | None:
    """By earlier runs; unknown too where they say what cannot be reckoned with, since it is for looking at only."""
    try:
        return estimates.seconds(
            stage.reads(config),
            estimates.earlier_runs(store().earlier(stage.name), bases),
            base=base if "base" in stage.needs(config) else None,
            count=estimates.COUNTED.get(stage.name, ""),
            asked=estimates.items(config, stage.name),
        )
    except Exception as error:  # noqa: BLE001 - as above
        run_logger().debug("how long %s takes could not be estimated: %s", stage.name, error)
        return None
