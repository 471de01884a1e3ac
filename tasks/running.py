"""Runs one stage: taken from the store where it is there, else computed under GPU slots, with its progress reported."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from httpx import HTTPError, HTTPStatusError, codes
from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import MissingContextError, ObjectNotFound

from alignment.config import AlignConfig
from alignment.stages.job import Job
from alignment.stages.plan import KEY_LENGTH, lineage
from alignment.stages.stage import Refs, Stage
from alignment.stages.store import StageRef, digest
from tasks.following import progress_of_run
from tasks.home import store
from tasks.progress import Event
from tasks.stopping import held_signals, require_wanted
from tasks.transient import is_transient

GPU_SLOT = "gpu"
LEASE_SECONDS = 120  # a slot outlives its run by so much after kill -9, and a server that is away by no more
ASK_EVERY = 5.0  # seconds between two questions for a slot that is taken
ARTIFACT_EVERY = 3.0  # seconds between updates of a progress artifact
TELL_EVERY = 0.2  # seconds between updates of the terminal

__all__ = ["Event"]

WAITING = f"waits for a GPU slot; one that a killed run held is free after {LEASE_SECONDS / 60:g} minutes"


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
) -> StageRef:
    """Compute a stage, one `part` of it, or the merge of its `parts`, unless the store has it; returns the reference.

    `refs` are the finished stages so far, of which the stage reads those it needs. A merge waits for no GPU slot. Two
    processes never compute the same: the second waits, and finds the first one's result.
    """
    made_of = lineage(stage, config, refs)
    key = digest(made_of)[:KEY_LENGTH]
    folder, label = stage.name, stage.name
    if part is not None:
        folder, key, label = parts_folder(stage), f"{key}-{part[0]}-{part[1]}", f"{label} {part[0]}-{part[1]}"
    found = store().find(folder, key)
    if found is not None:
        tell(Event(label, "cached", ref=found))
        return found
    tell(Event(label, "started"))
    slots = 0 if stage.parts and part is None else stage.slots(config)
    slot = gpu_slot(label, slots) if slots else nullcontext()
    held = held_signals() if stage.trains(config) else nullcontext()
    with store().lock(folder, key, require_wanted), slot, held, reported_progress(label) as progress:
        if (found := store().find(folder, key)) is not None:
            tell(Event(label, "cached", ref=found))
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
                progress=progress,
                on_row=_noted(label, on_row),
                read=made_of["config"],
                part=part or (0, 0),
                parts=tuple(ref.path for ref in parts),
            )
            return (stage.parts.body if stage.parts and part else stage.body)(job)

        spent = sum(part.seconds for part in parts)
        ref = store().write(folder, key, write, inputs=made_of, spent=spent)
        store().clear_work(folder, key)
    tell(Event(label, "computed", ref=ref))
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
    """Where the store keeps the parts of a stage until they are merged."""
    return f"{stage.name}-parts"


def tell(event: Event) -> None:
    """Pass an event to the listeners, with its place in the run, or to the run's log where nobody listens."""
    progress = progress_of_run()
    event = event if progress is None else progress.note(event)
    for listener in LISTENERS:
        listener(event)
    if not LISTENERS and event.kind != "progress":
        counts = f": {event.ref.counts}, {event.ref.seconds:.1f} s" if event.ref else ""
        kind = {"heading": "", "waiting": f" {WAITING}"}.get(event.kind, f" {event.kind}")
        run_logger().info("%s%s%s", event.stage, kind, counts)


def run_logger() -> Any:
    """The logger of the current run, or an ordinary one outside of any."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("plumbline")


@contextmanager
def gpu_slot(label: str, slots: int = 1) -> Iterator[None]:
    """Hold slots of the global concurrency limit `gpu`; where no such limit exists, there is nothing to wait for.

    Raises Interrupted where the run was asked to stop meanwhile.
    """
    if not _gpu_is_limited():  # `concurrency` would warn of it each time
        yield
        return
    with ExitStack() as held:
        if not _take_slots(held, slots):
            tell(Event(label, "waiting"))
            _pause(ASK_EVERY)
            while not _take_slots(held, slots):
                _pause(ASK_EVERY)
        yield


def _take_slots(held: ExitStack, slots: int) -> bool:
    """Ask for slots once, and hold them until the end of `held`; False where too few are free.

    Prefect's client would go on asking by itself, and has to have its answer before its process can end: after Ctrl-C
    that kept the process until another run's end.
    """
    try:
        held.enter_context(concurrency(GPU_SLOT, occupy=slots, lease_duration=LEASE_SECONDS, max_retries=0))
    except ConcurrencySlotAcquisitionError as error:
        cause = error.__cause__
        if isinstance(cause, HTTPStatusError) and cause.response.status_code == codes.LOCKED:
            return False
        raise
    return True


def _pause(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        require_wanted()
        time.sleep(TELL_EVERY)


def _is_worth_telling(record: logging.LogRecord) -> bool:
    return "ConcurrencySlotAcquisitionWithLeaseService" not in (record.args or ())


# a slot that is taken is an error there, and what else can go wrong is raised
logging.getLogger("prefect._internal.concurrency").addFilter(_is_worth_telling)


@contextmanager
def reported_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress function `(done, total)` that feeds the listeners and, for long work, a Prefect progress artifact.

    It raises Interrupted where the run was asked to stop.
    """
    started = time.monotonic()
    last_told = last_artifact = started
    artifact: Any = None

    def progress(done: int, total: int) -> None:
        nonlocal last_told, last_artifact, artifact
        now = time.monotonic()
        if now - last_told >= TELL_EVERY or done == total:
            last_told = now
            tell(Event(label, "progress", done, total))
        if now - last_artifact >= ARTIFACT_EVERY:
            last_artifact = now
            percent = 100.0 * done / max(total, 1)
            artifact = _progress_artifact(artifact, label, percent)
        require_wanted()

    yield progress
    if artifact is not None:
        _progress_artifact(artifact, label, 100.0)


def _gpu_is_limited() -> bool:
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(GPU_SLOT).active
        except ObjectNotFound:
            return False


def _progress_artifact(artifact: Any, label: str, percent: float) -> Any:
    """Create or update the artifact. It is for looking at only: where Prefect cannot be reached, the work goes on."""
    try:
        if artifact is None:
            key = "".join(char if char.isalnum() else "-" for char in label.lower())
            return create_progress_artifact(progress=percent, key=f"progress-{key}", description=f"Progress of {label}")
        update_progress_artifact(artifact, progress=percent)
    except (HTTPError, ObjectNotFound, OSError) as error:
        run_logger().debug("progress of %s was not shown: %s", label, error)
    return artifact
