"""Runs one stage: taken from the store where it is there, else computed under GPU slots, with its progress reported."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State

from alignment.config import AlignConfig
from alignment.stages.job import Job, share
from alignment.stages.parts import fill, summed, with_parts
from alignment.stages.plan import KEY_LENGTH, lineage
from alignment.stages.stage import Refs, Stage
from alignment.stages.store import StageRef, digest
from alignment.transient import is_transient
from tasks.following import progress_of_run
from tasks.home import store
from tasks.metering import failures_counted, note
from tasks.placing import give_up_place, place_for, placed, slots_of
from tasks.progress import Event
from tasks.run_page import page_of_run
from tasks.stopping import held_signals, require_wanted

TELL_EVERY = 0.2  # seconds between two reports of a stage's progress

LISTENERS: list[Callable[[Event], None]] = []

RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_condition_fn": lambda _task, _run, state: can_pass(state),
}


def can_pass(state: State[Any]) -> bool:
    """Whether a failed task should be tried again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_transient(error)


def run_stage(
    stage: Stage,
    config: AlignConfig,
    refs: Refs,
    *,
    part: tuple[int, int] | None = None,
    parts: tuple[StageRef, ...] = (),
    on_row: Callable[[dict[str, float]], None] | None = None,
    made_of: dict[str, Any] | None = None,
    is_placed: bool = False,
    is_only: bool = False,
) -> StageRef:
    """Compute a stage, one `part` of it, or the list of its `parts`, unless the store has it; returns the reference.

    `refs` are the finished stages so far, of which the stage reads those it needs. A list waits for no GPU slot. Two
    processes never compute the same: the second waits, and finds the first one's result.

    `made_of` is the lineage, where it is known. A worker's part `is_placed`: who gave it to the worker has given it a
    GPU as well. What becomes of a part that `is_only` is told by the stage that it is all of.
    """
    made_of = made_of or lineage(stage, config, refs)
    key = digest(made_of)[:KEY_LENGTH]
    folder, label = stage.name, stage.name
    if part is not None:
        folder, key = part_in_store(stage, key, part)
        label = label if is_only else part_label(stage, part)
    ends: Callable[[Event], None] = (lambda _: None) if is_only else tell
    found = store().find(folder, key)
    if found is not None:
        ends(Event(label, "cached", ref=found))
        return found
    tell(Event(label, "started"))
    slots = 0 if is_placed or (stage.parts and part is None) else slots_of(stage, config)

    def on_wait(who: str) -> None:
        tell(Event(label, "waiting", who=who))

    def on_go() -> None:
        tell(Event(label, "started"))

    def while_locked() -> None:
        require_wanted()
        give_up_place()

    held = held_signals() if stage.trains(config) else nullcontext()
    counted, lock = failures_counted(stage.name), store().lock(folder, key, while_locked)
    place = place_for(partial(placed, stage, config, slots, on_wait, on_go), is_shared=bool(slots and part))
    with counted, lock, place as worker, held, reported_progress(label) as progress:
        if (found := store().find(folder, key)) is not None:
            ends(Event(label, "cached", ref=found))
            return found
        needed = {name: refs[name] for name in stage.needs(config)}

        def write(out: Path) -> Mapping[str, int]:
            job = Job(
                config,
                inputs={name: ref.path for name, ref in needed.items()},
                digests={name: ref.digest for name, ref in needed.items()},
                out=out,
                work=store().work(folder, key),
                kept=store().kept,
                progress=share(progress, 0, part[1] - part[0], part[1] - part[0]) if part and is_only else progress,
                on_row=_noted(label, on_row),
                read=made_of["config"],
                part=part or (0, 0),
                parts=tuple(ref.path for ref in parts),
                counted=summed(ref.counts for ref in parts),
            )
            return fill(stage, job) if worker is None else worker.compute(stage, job, require_wanted)

        spent = sum(part.seconds for part in parts)
        ref = store().write(folder, key, write, inputs=with_parts(made_of, parts), spent=spent)
        store().clear_work(folder, key)
    ends(Event(label, "computed", ref=ref))
    return ref


def _noted(label: str, on_row: Callable[[dict[str, float]], None] | None) -> Callable[[dict[str, float]], None] | None:
    """`on_row` that the run's progress learns the rows of as well."""
    progress = progress_of_run()
    if progress is None or on_row is None:
        return on_row

    def both(row: dict[str, float]) -> None:
        progress.row(label, row)
        on_row(row)

    return both


def parts_folder(stage: Stage) -> str:
    """Where the store keeps the parts of a stage."""
    return f"{stage.name}-parts"


def part_in_store(stage: Stage, key: str, part: tuple[int, int]) -> tuple[str, str]:
    """Folder and key of a part of a stage, whose own key is `key`."""
    return parts_folder(stage), f"{key}-{part[0]}-{part[1]}"


def part_label(stage: Stage, part: tuple[int, int]) -> str:
    """What events call a part of a stage, as in `samples 0-128`."""
    return f"{stage.name} {part[0]}-{part[1]}"


def tell(event: Event) -> None:
    """Pass an event to the listeners and to the run's page, with its place in the run."""
    progress, page = progress_of_run(), page_of_run()
    event = event if progress is None else progress.note(event)
    note(event)
    for listener in LISTENERS:
        listener(event)
    if page is not None:
        page.hear(event)


@contextmanager
def reported_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress function `(done, total)` whose reports are told, the last one always.

    It raises Interrupted where the run was asked to stop.
    """
    last_told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last_told
        now = time.monotonic()
        if now - last_told >= TELL_EVERY or done == total:
            last_told = now
            tell(Event(label, "progress", done, total))
        require_wanted()

    yield progress
