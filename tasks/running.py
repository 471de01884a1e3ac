"""Runs one stage: out of the store where it is there, else under a GPU slot, with progress told to whoever listens."""

import importlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from alignment.stages.plan import STAGES, lineage
from alignment.stages.store import StageRef
from tasks.home import store
from tasks.stopping import held_signals, require_wanted
from tasks.transient import is_transient

GPU_SLOT = "gpu"
LEASE_SECONDS = 120  # a slot outlives its run by so much after kill -9, and a server that is away by no more
ASK_EVERY = 5.0  # seconds between two questions for a slot that is taken
ARTIFACT_EVERY = 3.0  # seconds between updates of a progress artifact
TELL_EVERY = 0.2  # seconds between updates of the terminal

WAITING = f"waits for a GPU slot; one that a killed run held is free after {LEASE_SECONDS / 60:g} minutes"

Refs = Mapping[str, StageRef]


@dataclass(frozen=True)
class Event:
    """Something happened to a stage: it started, moved on, was found in the store, or was computed.

    "waiting" is for a GPU slot; a "heading" says what the stages after it belong to.
    """

    stage: str
    kind: Literal["started", "progress", "cached", "computed", "waiting", "heading"]
    done: int = 0
    total: int = 0
    ref: StageRef | None = None


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
    name: str,
    config: AlignConfig,
    keys: Mapping[str, str],
    refs: Refs,
    *,
    part: str = "",
    fill: str = "",
    options: Mapping[str, Any] | None = None,
    on_row: Callable[[dict[str, float]], None] | None = None,
    gpu: bool = True,
) -> StageRef:
    """Compute a stage, or one `part` of it by its own `fill`, unless the store has it; returns the reference.

    `refs` are the finished stages so far, of which the stage reads those it needs. With `gpu` off it waits for no
    slot. Two processes never compute the same: the second waits, and finds the first one's result.
    """
    stage = STAGES[name]
    folder, key = (parts_folder(name), f"{keys[name]}-{part}") if part else (name, keys[name])
    label = f"{name} {part}" if part else name
    found = store().find(folder, key)
    if found is not None:
        tell(Event(label, "cached", ref=found))
        return found
    tell(Event(label, "started"))
    slot = gpu_slot(label) if stage.gpu and gpu else nullcontext()
    module, _, function = (fill or stage.fill).partition(":")
    inputs = {need: refs[need].path for need in stage.needs if need in refs}
    held = held_signals() if stage.trains(config) else nullcontext()
    with store().lock(folder, key, require_wanted), slot, held, reported_progress(label) as progress:
        if (found := store().find(folder, key)) is not None:
            tell(Event(label, "cached", ref=found))
            return found
        work = store().work(folder, key)

        def write(out: Path) -> Mapping[str, int]:
            job = Job(config, inputs, out, work, progress, on_row, options or {})
            counts: Mapping[str, int] = getattr(importlib.import_module(module), function)(job)
            return counts

        ref = store().write(folder, key, write, inputs=lineage(stage, config, dict(keys)))
        store().clear_work(folder, key)
    tell(Event(label, "computed", ref=ref))
    return ref


def parts_folder(stage: str) -> str:
    """Where the store keeps the parts of a stage until they are merged."""
    return f"{stage}-parts"


def tell(event: Event) -> None:
    """Pass an event to the listeners, or to the run's log where nobody listens."""
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
def gpu_slot(label: str) -> Iterator[None]:
    """Hold one slot of the global concurrency limit `gpu`; where no such limit exists, there is nothing to wait for.

    Raises Interrupted where the run was asked to stop meanwhile.
    """
    if not _gpu_is_limited():  # `concurrency` would warn of it each time
        yield
        return
    with ExitStack() as held:
        if not _take_slot(held):
            tell(Event(label, "waiting"))
            _pause(ASK_EVERY)
            while not _take_slot(held):
                _pause(ASK_EVERY)
        yield


def _take_slot(held: ExitStack) -> bool:
    """Ask for a slot once, and hold it until the end of `held`; False where none is free.

    Prefect's client would go on asking by itself, and has to have its answer before its process can end: after Ctrl-C
    that kept the process until another run's end.
    """
    try:
        held.enter_context(concurrency(GPU_SLOT, occupy=1, lease_duration=LEASE_SECONDS, max_retries=0))
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
