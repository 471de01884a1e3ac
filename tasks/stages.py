"""The pipeline's stages as Prefect tasks, made from their declarations: they pass references, and never data."""

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from prefect import Task, task, unmapped
from prefect.utilities.annotations import quote

from alignment.config import AlignConfig
from alignment.errors import StoreError
from alignment.stages.parts import parts_of
from alignment.stages.plan import key_of
from alignment.stages.stage import Refs, Stage
from alignment.stages.store import StageRef
from tasks.curve import LiveCurve
from tasks.following import progress_of_run
from tasks.home import store
from tasks.pipeline import PIPELINE, STAGES
from tasks.placing import one_place
from tasks.runners import runner
from tasks.running import RETRIES, parts_folder, run_stage
from tasks.slots import GPU_SLOT


def compute(stage: Stage, config: AlignConfig, refs: Refs, run_id: str = "") -> StageRef:
    """Run a stage as a task, or as a task for each part and one that lists them; `refs` has what it needs.

    A task is given that alone, and the list its parts: so Prefect draws the way that the data takes. What a training
    reports on its way goes to the MLflow run `run_id`.
    """
    tags = [GPU_SLOT] if stage.slots(config) else None
    refs = {name: refs[name] for name in stage.needs(config)}
    whole, settings = _task(stage.name), unlinked(config)
    found: StageRef
    if stage.parts is None:
        found = whole.with_options(tags=tags)(settings, refs, run_id)
        return found
    key = key_of(stage, config, refs)
    if store().find(stage.name, key):
        found = whole(settings, refs, run_id)
        return found
    ranges = stage.parts.split(config, refs)
    if len(ranges) == 1 and runner() == "threads":
        found = whole.with_options(tags=tags)(settings, refs, run_id, only=ranges[0])
    else:
        if (progress := progress_of_run()) is not None:
            progress.split(stage.name, ranges)
        found = whole(settings, unlinked(refs), run_id, _parts(stage, config, refs, ranges, tags))
    with suppress(OSError, StoreError):  # parts of other sizes, that an earlier run was at: they are in nobody's way
        kept = {Path(part).name for part in parts_of(found.path)}
        store().discard(parts_folder(stage), f"{key}-", keep=kept)
    return found


def _parts(
    stage: Stage, config: AlignConfig, refs: Refs, ranges: list[tuple[int, int]], tags: list[str] | None
) -> list[StageRef]:
    """Every part of a stage, on the threads of this process, on workers or by jobs."""
    if runner() == "ray":
        from tasks import ray_workers

        return ray_workers.compute_parts(stage, config, refs, ranges)
    if runner() == "jobs":
        from tasks import jobs

        return jobs.compute_parts(stage, config, refs, ranges)
    parts = _part_task(stage.name).with_options(tags=tags)
    with one_place():
        return list(parts.map(ranges, unmapped(unlinked(config)), unmapped(refs)).result())


def unlinked(given: Any) -> Any:
    """What a task is given without arrows to it in Prefect's graph, as from each stage whose name is a value in it."""
    return quote(given)


def compute_alone(goal: str, config: AlignConfig) -> StageRef:
    """One stage, after those that it needs."""
    refs: dict[str, StageRef] = {}
    for stage in PIPELINE.wanted(config, goal):
        refs[stage.name] = compute(stage, config, refs)
    return refs[goal]


@cache
def _task(name: str) -> Task[..., StageRef]:
    stage = STAGES[name]

    def run(
        config: AlignConfig,
        refs: dict[str, StageRef],
        run_id: str,
        parts: list[StageRef] | None = None,
        only: tuple[int, int] | None = None,
    ) -> Any:
        curve = LiveCurve(run_id) if run_id else None
        if only is not None:
            parts = [run_stage(stage, config, refs, part=only, is_only=True)]
        return run_stage(stage, config, refs, parts=tuple(parts or ()), on_row=curve)

    return _named(run, stage.title, name, stage.body.__doc__)


@cache
def _part_task(name: str) -> Task[..., StageRef]:
    stage = STAGES[name]
    parts = stage.parts
    assert parts is not None

    def run(part: tuple[int, int], config: AlignConfig, refs: dict[str, StageRef]) -> Any:
        return run_stage(stage, config, refs, part=part)

    made = _named(run, parts.title, f"{name}_part", parts.body.__doc__)
    return made.with_options(task_run_name=f"{parts.title} {{part}}")


def _named(run: Any, title: str, name: str, doc: str | None) -> Task[..., StageRef]:
    run.__name__ = run.__qualname__ = name
    run.__doc__ = doc
    return task(name=title, **RETRIES)(run)
