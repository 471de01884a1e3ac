"""Shards by jobs: a run starts them, takes what they finish, starts lost ones again, and stops the others."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.flow_engine import run_flow
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Pending, Running, Scheduled

from alignment.config import AlignConfig
from alignment.errors import ConfigError, Interrupted, PlumblineError, ProcessError, StackError, StoreError
from alignment.stages.job_file import config_as_json
from alignment.stages.plan import KEY_LENGTH, Planned, lineage
from alignment.stages.store import StageRef, digest
from flows.shards import require_startable, shards
from flows.stack.deployments import apply_deployment, read_deployments
from tasks import jobs, pools, running, workers
from tasks.home import store
from tasks.pipeline import PIPELINE
from tasks.progress import Event
from tasks.runners import TAG
from tasks.workers import named
from tests.tasks.test_running import CONFIG, SAMPLES, rows

PROJECT = Path(__file__).parents[2]
RANGES = [(0, 8), (8, 16), (16, 20)]
POOL = "local"
LOOK_EVERY = 0.5  # seconds; more often, SQLite on a busy machine is locked for whom it matters


@pytest.fixture
def client(prefect_server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def pool(client: SyncPrefectClient) -> Iterator[str]:
    """A work pool with the two deployments of shards, and a worker that was there a moment ago."""
    client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    for spec in read_deployments(PROJECT):
        if spec["name"].startswith("shards"):
            apply_deployment(client, PROJECT, spec, POOL)
    client.send_worker_heartbeat(POOL, "a worker")
    yield POOL
    for deployment in client.read_deployments():
        client.delete_deployment(deployment.id)
    for run in client.read_flow_runs():
        client.delete_flow_run(run.id)
    client.delete_work_pool(POOL)


@pytest.fixture
def given() -> dict[str, StageRef]:
    return {name: store().write(name, "k1", rows(20)) for name in ("base", "prompts")}


def fill(part: tuple[int, int], made_of: dict[str, Any]) -> StageRef:
    """What a job leaves in the store of a shard."""
    key = f"{digest(made_of)[:KEY_LENGTH]}-{part[0]}-{part[1]}"
    return store().find("samples-parts", key) or store().write("samples-parts", key, rows(part[1] - part[0]))


Act = Callable[[SyncPrefectClient, FlowRun], None]


class Worker:
    """Takes every run that is due and does with it what it is told to, at last what a worker does: it runs the flow."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.taken: list[FlowRun] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._work,), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)

    def hangs_at_its_only_run(self, client: SyncPrefectClient, run: FlowRun) -> None:
        """Begin it and no other, and never end."""
        self._over.set()
        hang(client, run)

    def _work(self) -> None:
        due = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])))
        with get_client(sync_client=True) as client:
            while not self._over.wait(LOOK_EVERY):
                for run in client.read_flow_runs(flow_run_filter=due, sort=FlowRunSort.EXPECTED_START_TIME_ASC):
                    if self._over.is_set():
                        return
                    self.taken.append(run)
                    (self.acts.pop(0) if self.acts else compute)(client, run)


def compute(_: SyncPrefectClient, run: FlowRun) -> None:
    run_flow(shards, flow_run=run, return_type="state")


def ends(state: Any, finished: int = 0) -> Act:
    """Finish so many shards, and end in a state."""

    def act(client: SyncPrefectClient, run: FlowRun) -> None:
        client.set_flow_run_state(run.id, Running(), force=True)
        for part in run.parameters["ranges"][:finished]:
            fill(tuple(part), run.parameters["made_of"])
        client.set_flow_run_state(run.id, state, force=True)

    return act


def hang(client: SyncPrefectClient, run: FlowRun) -> None:
    """Begin, unless it was cancelled meanwhile, and never end."""
    if client.set_flow_run_state(run.id, Pending()).status == SetStateStatus.ACCEPT:
        client.set_flow_run_state(run.id, Running())


def asked(run: FlowRun) -> list[tuple[int, int]]:
    return [(first, last) for first, last in run.parameters["ranges"]]


@pytest.fixture
def worker(pool: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    def run_stage(*_: Any, part: tuple[int, int], made_of: dict[str, Any], is_placed: bool) -> StageRef:
        assert not is_placed, "a job waits for a GPU slot like any run"
        return fill(part, made_of)

    monkeypatch.setattr(workers, "run_stage", run_stage)
    monkeypatch.setattr(jobs, "LOOK_EVERY", LOOK_EVERY)
    monkeypatch.setattr(jobs, "AGAIN_AFTER", 0.01)
    monkeypatch.setenv("PLUMBLINE_SHARDS_PER_JOB", "2")
    made = Worker()
    made.start()
    yield made
    made.stop()


@flow(name="asks", flow_run_name="mine")
def asks(given: dict[str, StageRef]) -> list[StageRef]:
    return jobs.compute_parts(SAMPLES, CONFIG, given, RANGES)


def test_a_few_shards_a_job_and_their_parts_in_order(
    worker: Worker, given: dict[str, StageRef], events: list[Event]
) -> None:
    found = asks(given)
    assert [ref.counts["train"] for ref in found] == [8, 8, 4]
    assert [asked(run) for run in worker.taken] == [[(0, 8), (8, 16)], [(16, 20)]]
    assert [run.name for run in worker.taken] == ["mine: samples 0-16", "mine: samples 16-20"]
    told = [event.stage for event in events if event.kind == "computed"]
    assert sorted(told) == ["samples 0-8", "samples 16-20", "samples 8-16"]
    assert all(run.parent_task_run_id for run in worker.taken), "they are on the run's page"


def test_people_are_not_told_of_jobs_and_dead_ones_are_found(worker: Worker, given: dict[str, StageRef]) -> None:
    from flows.stack.bootstrap import zombies
    from flows.stack.notifications import OURS

    asks(given)
    assert [run.tags for run in worker.taken] == [[TAG]] * 2
    assert OURS["prefect.resource.id"] != f"prefect.tag.{TAG}"
    trigger: Any = zombies().trigger
    assert f"prefect.tag.{TAG}" in trigger.match_related["prefect.resource.id"]


def test_what_the_store_has_is_asked_of_no_job(worker: Worker, given: dict[str, StageRef], events: list[Event]) -> None:
    fill((0, 8), lineage(SAMPLES, CONFIG, given))
    asks(given)
    assert [asked(run) for run in worker.taken] == [[(8, 16), (16, 20)]]
    assert [event.stage for event in events if event.kind == "cached"] == ["samples 0-8"]
    asks(given)
    assert len(worker.taken) == 1


def test_the_store_is_not_asked_for_what_a_job_has_not_begun(
    given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds may wait in the queue, and each look at all of them would be as many requests."""
    looks: list[tuple[int, int]] = []
    watch, job = jobs.Watch(SAMPLES, CONFIG, given), jobs.Job(RANGES)
    monkeypatch.setattr(watch, "finds", looks.append)
    watch._look(job, FlowRun(flow_id=uuid4(), state=Scheduled()))
    assert looks == []
    watch._look(job, FlowRun(flow_id=uuid4(), state=Running()))
    assert looks == RANGES[:1]


def test_of_a_lost_job_the_missing_shards_are_computed_again(worker: Worker, given: dict[str, StageRef]) -> None:
    worker.acts = [ends(Crashed(message="evicted"), finished=1)]
    assert len(asks(given)) == 3
    assert [asked(run) for run in worker.taken] == [[(0, 8), (8, 16)], [(16, 20)], [(8, 16)]]


def test_jobs_that_are_lost_again_and_again_end_the_run(
    worker: Worker, given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_SHARDS_PER_JOB", "3")
    worker.acts = [ends(Crashed(message="evicted"))] * 9
    with pytest.raises(StackError, match=r"^samples 0-20: its job was lost 4 times \(evicted\); look at .* or lower"):
        asks(given)
    assert len(worker.taken) == 4


def test_jobs_that_write_to_another_store_are_found_out(
    worker: Worker, given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LOST", 0)
    worker.acts = [ends(Completed())] * 2
    with pytest.raises(StoreError, match=r"^stage store: the job of samples .* has ended, and .* has nothing of it"):
        asks(given)


@pytest.mark.parametrize(
    ("state", "kind", "told"),
    [
        (Cancelled(), StackError, r"^samples 0-16: its job was cancelled in Prefect \(.*\); run again to compute"),
        (Cancelling(), StackError, r"^samples 0-16: its job was cancelled in Prefect \(.*\); run again to compute"),
        (None, StoreError, r"^stage store: the worker on .* does not see .*/base/k1, which the stage base has made"),
    ],
    ids=["cancelled", "cancelled without a worker that could end it", "refused"],
)
def test_what_ends_a_job_ends_the_run_and_the_other_jobs_are_cancelled(
    worker: Worker,
    client: SyncPrefectClient,
    given: dict[str, StageRef],
    monkeypatch: pytest.MonkeyPatch,
    state: Any,
    kind: type[PlumblineError],
    told: str,
) -> None:
    """An error of ours is raised in its own words."""
    monkeypatch.setattr(jobs, "DYING", 0.0)
    worker.acts = [compute if state is None else ends(state), hang]
    gone = given | {"base": given["base"].model_copy(update={"digest": "another"})} if state is None else given
    with pytest.raises(kind, match=told):
        asks(gone)
    worker.stop()
    other = next(run for run in client.read_flow_runs() if run.name == "mine: samples 16-20")
    assert other.state_type in {StateType.CANCELLING, StateType.CANCELLED}


def test_a_job_whose_store_was_away_is_started_again(
    worker: Worker, given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def compute_part(*_: Any, part: tuple[int, int], made_of: dict[str, Any], is_placed: bool) -> StageRef:
        tries.append(part)
        if part == (16, 20) and tries.count(part) <= 3:  # a job tries a shard three times
            error = StoreError("stage store: cannot read s3://bucket")
            error.transient = True
            raise error
        return fill(part, made_of)

    monkeypatch.setattr(workers, "run_stage", compute_part)
    monkeypatch.setattr(workers.PART, "retry_delay_seconds", [0, 0])
    assert len(asks(given)) == 3
    assert [asked(run) for run in worker.taken].count([(16, 20)]) == 2


def test_an_error_that_nobody_has_foreseen_is_named(
    worker: Worker, given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(workers, "run_stage", fails)
    with pytest.raises(ProcessError, match=r"^samples 0-16: its job failed \(.*division by zero.*\); .* has its log"):
        asks(given)


def test_a_run_that_is_stopped_cancels_its_jobs(
    worker: Worker, client: SyncPrefectClient, given: dict[str, StageRef]
) -> None:
    def stop(event: Event) -> None:
        if event.kind == "started":
            raise Interrupted("the run was asked to stop")

    worker.acts = [worker.hangs_at_its_only_run]
    running.LISTENERS.append(stop)
    try:
        with pytest.raises(Interrupted):
            asks(given)
    finally:
        running.LISTENERS.remove(stop)
    worker.stop()
    found = [run for run in client.read_flow_runs() if TAG in run.tags]
    assert {run.state_type for run in found} <= {StateType.CANCELLING, StateType.CANCELLED}
    assert len(found) == 2


def test_jobs_that_a_killed_run_has_started_are_taken_over_by_its_retry(
    worker: Worker, given: dict[str, StageRef]
) -> None:
    slow = threading.Event()

    def later(client: SyncPrefectClient, run: FlowRun) -> None:
        client.set_flow_run_state(run.id, Running(), force=True)
        assert slow.wait(60)
        ends(Completed(), finished=2)(client, run)

    @flow(name="asks", flow_run_name="mine")
    def asks_twice() -> list[StageRef]:
        """As of a run that was killed after it had started a job, and goes on under the same id."""
        worker.acts = [later]
        jobs.Watch(SAMPLES, CONFIG, given)._start([jobs.Job([(0, 8), (8, 16)])])
        while not worker.taken:
            time.sleep(0.05)
        slow.set()
        return jobs.compute_parts(SAMPLES, CONFIG, given, RANGES)

    assert len(asks_twice()) == 3
    assert [asked(run) for run in worker.taken] == [[(0, 8), (8, 16)], [(16, 20)]]


def test_all_jobs_of_before_are_taken_over_though_prefect_lists_only_some_at_a_time(
    pool: str, client: SyncPrefectClient, given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SyncPrefectClient.read_flow_runs

    def some(client: SyncPrefectClient, *, limit: int | None = None, **others: Any) -> list[FlowRun]:
        return read(client, limit=min(limit or 2, 2), **others)

    @flow
    def starts() -> list[jobs.Job]:
        watch = jobs.Watch(SAMPLES, CONFIG, given)
        watch._start([jobs.Job([part]) for part in RANGES])
        return watch._at_work(client, RANGES)

    monkeypatch.setattr(jobs, "LISTED", 2)
    monkeypatch.setattr(SyncPrefectClient, "read_flow_runs", some)
    assert sorted(job.left for job in starts()) == [[part] for part in RANGES]


def test_a_store_or_a_server_that_is_away_for_a_while_ends_no_run(
    worker: Worker, given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run asks of Prefect first, and looks at what its jobs have finished."""
    away = StoreError("stage store: cannot read it")
    away.transient = True
    errors: dict[str, list[Exception | None]] = {"require_worker": [httpx.ConnectError("refused")]}
    errors["store"] = [None, None, None, away, away]

    def at_first(name: str, ask: Callable[..., Any]) -> None:
        def asked(*given: Any) -> Any:
            if errors[name] and (error := errors[name].pop(0)):
                raise error
            return ask(*given)

        monkeypatch.setattr(jobs, name, asked)

    at_first("require_worker", pools.require_worker)
    at_first("store", store)
    assert len(asks(given)) == 3
    assert errors == {"require_worker": [], "store": []}
    assert len(worker.taken) == 2


# What is refused before


@pytest.fixture
def by_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_RUNNER", "jobs")


@pytest.mark.usefixtures("by_jobs")
def test_without_the_deployments_a_run_is_refused(client: SyncPrefectClient, given: dict[str, StageRef]) -> None:
    told = r"^PLUMBLINE_RUNNER jobs: Prefect has no deployment shards/shards; set PREFECT_API_URL to .* `plumbline boot"
    with pytest.raises(StackError, match=told):
        require_startable(PIPELINE, CONFIG)
    with pytest.raises(StackError, match=told):
        asks(given)


@pytest.mark.usefixtures("by_jobs")
def test_a_pool_that_nobody_works_for_is_refused_after_a_while(
    pool: str, client: SyncPrefectClient, given: dict[str, StageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.schemas.actions import WorkPoolUpdate

    monkeypatch.setattr(pools, "WORKER_WITHIN", 0.0)
    client.update_work_pool(pool, WorkPoolUpdate(is_paused=True))
    with pytest.raises(StackError, match=r"^PLUMBLINE_RUNNER jobs: the work pool local is paused; resume it"):
        asks(given)
    monkeypatch.setattr(pools, "_idle", lambda *_: "the work pool local has no worker; start one")
    with pytest.raises(StackError, match=r"has no worker; start one, or set PLUMBLINE_RUNNER to threads or ray$"):
        asks(given)
    require_startable(PIPELINE, CONFIG)


@pytest.mark.usefixtures("by_jobs")
def test_a_file_of_code_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    """Whoever may start a deployment could name one."""
    (tmp_path / "mine.py").write_text("def reward(prompts, completions, **columns): return [0.0] * len(prompts)\n")
    own = {"kind": "function", "function": f"{tmp_path / 'mine.py'}:reward"}
    with pytest.raises(ConfigError, match=r"^reward\.function = .*mine\.py:reward: a file of code is taken from"):
        require_startable(PIPELINE, AlignConfig.model_validate({"reward": own}))


def test_a_ray_that_does_not_answer_is_refused_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tasks import ray_workers

    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    require_startable(PIPELINE, CONFIG)
    monkeypatch.setenv("PLUMBLINE_RUNNER", "ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^PLUMBLINE_RUNNER ray: .* is not installed"):
        require_startable(PIPELINE, CONFIG)
    monkeypatch.setattr(ray_workers, "_require_installed", lambda: None)
    with pytest.raises(StackError, match=rf"^RAY_ADDRESS {nobody}: no Ray answers there \(Connection refused\)"):
        require_startable(PIPELINE, CONFIG)
    left = [Planned(stage, "k", ref(stage.name, tmp_path)) for stage in PIPELINE.wanted(CONFIG)]
    monkeypatch.setattr(type(PIPELINE), "plan", lambda *_: left)
    require_startable(PIPELINE, CONFIG)


def ref(stage: str, folder: Path) -> StageRef:
    """What the store has of a finished stage."""
    return StageRef(stage=stage, key="k", path=folder, digest="d", counts={}, seconds=0.0)


# What the flow itself refuses, whoever starts it


def start(given: dict[str, StageRef], **changed: Any) -> Any:
    parameters: dict[str, Any] = {
        "stage": "samples",
        "ranges": RANGES[:1],
        **config_as_json(CONFIG),
        "refs": named(given),
        "made_of": lineage(SAMPLES, CONFIG, given),
    }
    return shards(**(parameters | changed))


@pytest.mark.usefixtures("prefect_server")
def test_a_job_takes_no_other_stage_shards_or_code_than_a_run_has(
    given: dict[str, StageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "run_stage", lambda *_, **__: pytest.fail("something was computed"))
    (tmp_path / "mine.py").write_text("raise SystemExit\n")
    own = {"kind": "function", "function": f"{tmp_path / 'mine.py'}:reward"}
    with pytest.raises(ConfigError, match=r"^stage policy: is computed in no shards"):
        start(given, stage="policy")
    with pytest.raises(ConfigError, match=r"^stage os\.system: is computed in no shards"):
        start(given, stage="os.system")
    with pytest.raises(ConfigError, match=r"^samples: \[\(0, 9\)\] are no shards of this configuration"):
        start(given, ranges=[(0, 9)])
    with pytest.raises(ConfigError, match="a file of code is taken from"):
        start(given, **config_as_json(AlignConfig.model_validate({"reward": own})))
    with pytest.raises(StackError, match="has other code for this stage than the run"):
        start(given, made_of=lineage(SAMPLES, CONFIG, given) | {"code": "other"})
