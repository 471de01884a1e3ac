"""The shards of a stage as jobs of a work pool: flow runs that a run starts, watches, starts again and stops.

A job computes a few shards, one after the other, and each is in the store once it is finished: so the run looks there,
and of a job that was lost only the shards that are missing are computed again.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.states import Cancelling

from alignment.config import AlignConfig
from alignment.errors import ProcessError, StackError, StoreError, kind_of_error
from alignment.stages.job_file import config_as_json
from alignment.stages.plan import KEY_LENGTH, lineage
from alignment.stages.stage import Refs, Stage
from alignment.stages.store import StageRef, digest
from alignment.transient import is_transient
from tasks.addresses import flow_run_url, shown
from tasks.home import store
from tasks.pools import ON_A_GPU, ON_PROCESSORS, require_worker, warn_where_nobody_works
from tasks.progress import Event
from tasks.run_log import run_logger
from tasks.runners import SHARDS_PER_JOB, shards_per_job
from tasks.running import part_in_store, part_label, tell
from tasks.stopping import pause
from tasks.workers import Range, Ranges, named

LOST = 3  # jobs in a row that may be lost without a shard
AGAIN_AFTER = 10.0  # seconds before a lost job is started again; twice as many each further time
LOOK_EVERY = 5.0  # seconds between two looks at the jobs
WARN_EVERY = 60.0  # seconds between two warnings that no job is at work
CANCELLING = 10.0  # seconds that Prefect may take to hear of jobs that are to be cancelled
DYING = 600.0  # seconds that a job may take to end once it is cancelled; nobody ends one whose worker is gone
ASK_EVERY = 0.5  # seconds between two times that it is told
AWAY = 600.0  # seconds that Prefect, or the store, may give no answer
LISTED = 200  # flow runs that Prefect lists at most
UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]
T = TypeVar("T")
UNREACHED = (HTTPError, PrefectException, OSError)


@dataclass
class Job:
    """The shards that one job is to compute, those that are not in the store, and the flow run that is at them."""

    left: list[Range]
    run: UUID | None = None
    began: bool = False
    lost: int = 0
    """How many runs in a row were lost without a shard."""
    again_at: float = 0.0
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What Prefect knows a request for a run by, so that one that is repeated starts no second run."""


def compute_parts(stage: Stage, config: AlignConfig, refs: Refs, ranges: Ranges) -> list[StageRef]:
    """Every part of a stage by jobs, in order. Raises what ends a job first; the others are cancelled.

    Raises StackError where there is no deployment, no worker, or too many jobs are lost.
    """
    watch = Watch(stage, config, refs)
    left = [part for part in ranges if not watch.finds(part, "cached")]
    if left:
        with get_client(sync_client=True) as client:
            watch.compute(client, left)
    return [watch.refs[part] for part in ranges]


class Watch:
    """The parts of one stage, as jobs finish them."""

    def __init__(self, stage: Stage, config: AlignConfig, refs: Refs) -> None:
        """Nothing is asked of Prefect yet."""
        made_of = lineage(stage, config, refs)
        self.stage = stage
        self.refs: dict[Range, StageRef] = {}
        self._key = digest(made_of)[:KEY_LENGTH]
        self._deployment = ON_A_GPU if stage.slots(config) else ON_PROCESSORS
        needed = {name: refs[name] for name in stage.needs(config)}
        asked = {"stage": stage.name, **config_as_json(config), "refs": named(needed), "made_of": made_of}
        self._asked: dict[str, Any] = json.loads(json.dumps(asked, default=str))

    def finds(self, part: Range, told: Any = "computed") -> bool:
        """Whether the store has a part, which is told."""
        ref = _patiently(lambda: store().find(*part_in_store(self.stage, self._key, part)))
        if ref is None:
            return False
        self.refs[part] = ref
        tell(Event(part_label(self.stage, part), told, ref=ref))
        return True

    def compute(self, client: SyncPrefectClient, left: list[Range]) -> None:
        """Have jobs compute these parts."""
        pool = self._answer(lambda: require_worker(client, self._deployment))
        jobs = self._answer(lambda: self._at_work(client, left))
        taken = {part for job in jobs for part in job.left}
        others = [part for part in left if part not in taken]
        jobs += [Job(some) for some in _batched(others, shards_per_job())]
        told = f"{self.stage.name}: jobs of the work pool {pool}: {len(jobs)}, shards: {len(left)}"
        run_logger().info("%s", told)
        warned = time.monotonic()
        with _cancelled_on_error(client, jobs):
            while jobs:
                runs = self._answer(lambda: self._runs(client, jobs))
                for job in [job for job in jobs if job.run]:
                    self._look(job, runs.get(job.run) if job.run else None)
                jobs[:] = [job for job in jobs if job.left]
                if jobs and time.monotonic() - warned > WARN_EVERY:
                    warned = time.monotonic()
                    warn_where_nobody_works(client, pool, runs.values())
                if jobs:
                    pause(LOOK_EVERY)

    def _answer(self, ask: Callable[[], T]) -> T:
        """What Prefect answers. Raises StackError where it stays away."""
        try:
            return _patiently(ask)
        except UNREACHED as error:
            reason = shown(" ".join(str(error).split()))[:300]
            raise StackError(
                f"{self.stage.name}: its jobs cannot be followed in Prefect ({reason}); run again once it answers: "
                "what is finished is kept"
            ) from error

    def _runs(self, client: SyncPrefectClient, jobs: list[Job]) -> dict[UUID, FlowRun]:
        """The run of each job, started where it has none."""
        self._start(jobs)
        return _read(client, [job.run for job in jobs if job.run])

    def _at_work(self, client: SyncPrefectClient, left: Iterable[Range]) -> list[Job]:
        """Jobs that this run has started for the same before it was killed, and that are not finished."""
        if not flow_run.id:
            return []
        runs = _children(client, UUID(flow_run.id))
        same = [run for run in runs if run.state_type in UNFINISHED and self._asked.items() <= run.parameters.items()]
        wanted, jobs = set(left), []
        for run in same:
            mine = [(first, last) for first, last in run.parameters["ranges"] if (first, last) in wanted]
            wanted -= set(mine)
            jobs += [Job(mine, run.id)] if mine else []
        return jobs

    def _start(self, jobs: Iterable[Job]) -> None:
        """Start a run of each job that has none."""
        for job in jobs:
            if job.run is None and time.monotonic() >= job.again_at:
                made: Any = run_deployment(
                    self._deployment,
                    parameters={**self._asked, "ranges": job.left},
                    timeout=0,
                    flow_run_name=f"{flow_run.name or 'a run'}: {self._label(job)}",
                    idempotency_key=job.token,
                )
                job.run, job.began = made.id, False

    def _look(self, job: Job, run: FlowRun | None) -> None:
        """Take what a job has finished; where its run has ended, it is done, failed, or to be started again."""
        state = None if run is None else run.state
        is_over = state is None or state.is_final() or _is_cancelled(state)
        if not job.began and state is not None and state.is_running():
            job.began = True
            tell(Event(part_label(self.stage, job.left[0]), "started"))
        if not (job.began or is_over):
            return
        for part in list(job.left):
            if self.finds(part):
                job.left.remove(part)
                job.lost = 0
            elif not is_over:  # they come one after the other
                break
        if not is_over or not job.left:
            return
        if run is not None and state is not None and (state.is_failed() or _is_cancelled(state)):
            raise self._error(job, run)
        reason = "it is gone from Prefect" if state is None else state.message or state.name or ""
        job.lost += 1
        if job.lost > LOST:
            raise self._given_up(job, reason, has_ended=state is not None and state.is_completed())
        run_logger().warning(
            "%s: its job was lost (%s); it is started again for what is missing", self._label(job), reason
        )
        job.run, job.token = None, uuid.uuid4().hex
        job.again_at = time.monotonic() + AGAIN_AFTER * 2 ** (job.lost - 1)

    def _error(self, job: Job, run: FlowRun) -> Exception:
        """What a job failed with: an error of ours is raised here as it was there, any other is named."""
        assert run.state is not None
        reason, page = run.state.message or "no reason is known", flow_run_url(run.id)
        if _is_cancelled(run.state):
            return StackError(
                f"{self._label(job)}: its job was cancelled in Prefect ({page}); run again to compute what is missing"
            )
        if kind := kind_of_error(run.state.name or ""):
            return kind(reason)
        return ProcessError(f"{self._label(job)}: its job failed ({reason}); {page} has its log")

    def _given_up(self, job: Job, reason: str, *, has_ended: bool) -> Exception:
        if has_ended:
            return StoreError(
                f"stage store: the job of {self._label(job)} has ended, and {store().place} has nothing of it; let "
                "PLUMBLINE_HOME or PLUMBLINE_STORE of the pool's jobs name the store of this run"
            )
        return StackError(
            f"{self._label(job)}: its job was lost {job.lost} times ({reason}); look at the log of the pool's worker "
            f"and at the memory of a job, or lower sampling.shard_prompts or {SHARDS_PER_JOB}"
        )

    def _label(self, job: Job) -> str:
        return part_label(self.stage, (job.left[0][0], job.left[-1][1]))


def _batched(items: Sequence[T], size: int) -> Iterator[list[T]]:
    return (list(items[first : first + size]) for first in range(0, len(items), size))


def _read(client: SyncPrefectClient, wanted: list[UUID]) -> dict[UUID, FlowRun]:
    """These flow runs, by their ids; those that are gone are missing."""
    return {
        run.id: run
        for some in _batched(wanted, LISTED)
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=some)))
    }


def _patiently(ask: Callable[[], T]) -> T:
    """What a server answers, which is asked again for a while where it may only be away."""
    began = time.monotonic()
    while True:
        try:
            return ask()
        except (*UNREACHED, StoreError) as error:
            if not is_transient(error) or time.monotonic() - began > AWAY:
                raise
        pause(LOOK_EVERY)


def _children(client: SyncPrefectClient, parent: UUID) -> Iterator[FlowRun]:
    """The flow runs that another has started, whatever became of them meanwhile: so none is passed over."""
    chosen = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
    for first in count(step=LISTED):
        some = client.read_flow_runs(flow_run_filter=chosen, sort=FlowRunSort.ID_DESC, limit=LISTED, offset=first)
        yield from some
        if len(some) < LISTED:
            return


@contextmanager
def _cancelled_on_error(client: SyncPrefectClient, jobs: list[Job]) -> Iterator[None]:
    """Where a job fails, or the run is asked to stop, the others have nobody to work for."""
    try:
        yield
    except BaseException:
        left = _cancel(client, {job.run for job in jobs if job.run})
        if left:
            pages = ", ".join(flow_run_url(run) for run in left)
            run_logger().warning(
                "Prefect did not take that these jobs are to be cancelled; cancel them there: %s", pages
            )
        raise


def _cancel(client: SyncPrefectClient, wanted: set[UUID]) -> set[UUID]:
    """Have flow runs cancelled, each by itself, until Prefect says that they are; returns those that it does not.

    Of a run that was cancelled itself, Prefect does the same.
    """
    ends = time.monotonic() + CANCELLING
    while wanted:
        for run in wanted:
            if time.monotonic() > ends:
                return wanted
            with suppress(*UNREACHED):
                client.set_flow_run_state(run, Cancelling(message="The run that it computes for has ended."))
        with suppress(*UNREACHED):
            wanted = {id for id, run in _read(client, list(wanted)).items() if _is_at_work(run)}
        if not wanted or time.monotonic() > ends:
            break
        time.sleep(ASK_EVERY)
    return wanted


def _is_cancelled(state: State[Any]) -> bool:
    """Whether a job has ended so, or would have by now if its worker still were there to end it."""
    return state.is_cancelled() or (
        state.is_cancelling() and datetime.now(UTC) - state.timestamp > timedelta(seconds=DYING)
    )


def _is_at_work(run: FlowRun) -> bool:
    return run.state is None or not (run.state.is_final() or run.state.is_cancelling())
