"""GPU slots: a stage that computes on the GPU holds one; who waits for one says so in the run's state, and for whom."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from uuid import UUID

from httpx import HTTPError, HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
    TaskRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import flow_run
from prefect.states import Running

from tasks.run_log import run_logger
from tasks.stopping import pause

GPU_SLOT = "gpu"
LEASE_SECONDS = 120  # a slot outlives its run by so much after kill -9, and a server that is away by no more
ASK_EVERY = 5.0  # seconds between two questions for a slot that is taken
WAITS = "WaitingForSlot"

WAITING = f"waits for a GPU slot; one that a killed run held is free after {LEASE_SECONDS / 60:g} minutes"


@contextmanager
def gpu_slot(slots: int, on_wait: Callable[[str], None], on_go: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold slots of the global concurrency limit `gpu`; where no such limit exists, there is nothing to wait for.

    Where the limit is lower than that, all that there are. Where they are taken, `on_wait` is told by whom, and the
    run's state is `WaitingForSlot` until it has them; both again where the holder changes. `on_go` is called once the
    wait is over. Raises Interrupted where the run was asked to stop meanwhile.
    """
    limit = _limit()
    if limit is None:  # `concurrency` would warn of it each time
        yield
        return
    slots = min(slots, limit)
    with ExitStack() as held:
        if not _take_slots(held, slots):
            told = None
            while told is None or not _take_slots(held, slots):
                if (holder := holders()) != told:
                    told = holder
                    on_wait(holder)
                    _set_state(WAITS, f"Waits for a GPU slot{f': {holder}' if holder else ''}.")
                pause(ASK_EVERY)
            on_go()
        _set_state("Running", "", after=WAITS)  # without a wait too: one that an error ended may have left its name
        yield


def holders() -> str:
    """Who holds the slots, and since when, in words; empty where Prefect does not say."""
    try:
        with get_client(sync_client=True) as client:
            return "; ".join(_held(task, run) for task, run in _holding(client))
    except (HTTPError, PrefectException, OSError) as error:
        run_logger().debug("who holds the GPU slots could not be read: %s", error)
        return ""


def _holding(client: SyncPrefectClient) -> list[tuple[TaskRun, FlowRun]]:
    """The tasks at work that need a slot, of runs that do not wait for one, each with its run."""
    found = client.read_task_runs(
        task_run_filter=TaskRunFilter(
            tags=TaskRunFilterTags(all_=[GPU_SLOT]),
            state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING])),
        )
    )
    at_work = {task.flow_run_id: task for task in found if task.flow_run_id and str(task.flow_run_id) != flow_run.id}
    if not at_work:
        return []
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(at_work))))
    return [(at_work[run.id], run) for run in runs if run.state_type == StateType.RUNNING and run.state_name != WAITS]


def _held(task: TaskRun, run: FlowRun) -> str:
    began = [moment for moment in (task.start_time, run.state.timestamp if run.state else None) if moment is not None]
    since = f" since {_clock(max(began))}" if began else ""
    return f"{run.name!r} holds it{since}, for {task.name.rsplit('-', 1)[0]!r}"


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone():%H:%M:%S}"


def _set_state(name: str, message: str, *, after: str = "") -> None:
    """Name the state of the flow run at work, which is Running; not where it is another, as once it was cancelled.

    With `after` only where that is its name.
    """
    run = flow_run.id
    if not run:
        return
    try:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(UUID(run))
            if found.state_type == StateType.RUNNING and after in {"", found.state_name}:
                client.set_flow_run_state(UUID(run), Running(name=name, message=message))
    except (HTTPError, PrefectException, OSError) as error:
        run_logger().debug("the run's state could not be named %s: %s", name, error)


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


def _limit() -> int | None:
    """How many slots there are, at least one; None where nothing limits them."""
    with get_client(sync_client=True) as client:
        try:
            found = client.read_global_concurrency_limit_by_name(GPU_SLOT)
        except ObjectNotFound:
            return None
    return max(1, found.limit) if found.active else None


def _is_worth_telling(record: logging.LogRecord) -> bool:
    return "ConcurrencySlotAcquisitionWithLeaseService" not in (record.args or ())


# a slot that is taken is an error there, and what else can go wrong is raised
logging.getLogger("prefect._internal.concurrency").addFilter(_is_worth_telling)
