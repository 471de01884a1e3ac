"""`plumbline up`: starts, restarts and stops MLflow, Prefect, the webhook receiver and a worker on one machine."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from alignment.errors import StackError
from alignment.stages.store import write_json
from flows.stack.activity import Row, read_activity, schedule_rows
from flows.stack.clients import STOPS_WITHIN, clients, stop_clients
from flows.stack.control import last_heartbeat
from flows.stack.logs import Log
from flows.stack.pages import deployments_page, first_steps_page
from flows.stack.prefect_server import database_lock, mark_database_made
from flows.stack.processes import call, end_marked, marked, start, stop
from flows.stack.services import (
    COMMAND,
    NOTIFY_URL,
    POOL,
    STOPPED_WITHIN,
    Ports,
    Service,
    make_services,
    project_folder,
    secret,
    stack_file,
    wait_for_each,
)
from flows.stack.state import STARTING, State, lock_home
from flows.stack.telling import Screen, Steps
from tasks.addresses import sqlite_uri
from tasks.home import place_told
from tasks.registry import connection, pages

READY_WITHIN = 180.0  # seconds until a service answers, on a machine that is busy with something else
LOOK_EVERY = 0.2  # seconds
DATABASE = "MLflow's database"  # the step that only a first start has
PAUSED = "paused"  # the file that exists while the work pool is paused by a stack, and not by a person
SHORT_LIFE = 60.0  # seconds; a process that dies sooner counts as failing
DEATHS = 5  # failures in a row after which the stack gives up
SETTLED = {"RUNNING": "CRASHED", "PAUSED": "CRASHED", "CANCELLING": "CANCELLED", "PENDING": "SCHEDULED"}


def up(home: Path, wanted: Ports, console: Console) -> int:
    """Run the stack until Ctrl-C, SIGTERM or SIGHUP; returns 0.

    Raises StackError if one is up already in this home, if a server does not start, and if a service keeps failing.
    """
    project = project_folder()
    screen = Screen(console)
    with lock_home(home) as stopping:
        end_marked(home)  # processes that a killed stack may have left
        ports = wanted.free()
        for name, before in asdict(wanted).items():
            if getattr(ports, name) != before:
                screen.own(f"port {before} is taken; {name} gets {getattr(ports, name)}", "WARNING")
        services = make_services(home, ports, project)
        try:
            _start(home, ports, services, screen, stopping)
            if not stopping.is_set():
                _watch(services, screen, stopping)
        finally:
            _stop(home, services, screen, stopping)
    return 0


def _start(home: Path, ports: Ports, services: dict[str, Service], screen: Screen, stopping: threading.Event) -> None:
    """Start the two servers side by side, then the receiver, and the worker once the bootstrap has made its pool."""
    secret(home, "webhook")
    prefect, mlflow, receiver = ports.addresses()
    stack_file(home, STARTING).touch()
    write_json(stack_file(home, "stack.json"), asdict(State(os.getpid(), prefect, mlflow, receiver)))
    is_first = not (home / "mlflow.db").exists()
    longer = "; the first start also makes the databases, and takes up to a minute" if is_first else ""
    screen.own(f"starting in {home}{longer}")
    if place := place_told():
        screen.own(place[0].lower() + place[1:])
    steps = Steps(screen, [*([DATABASE] if is_first else []), *services, "deployments"])
    with steps.shown():
        has_heartbeat = _take_steps(home, services, steps, prefect, stopping)
    if stopping.is_set():
        return
    if not has_heartbeat:
        screen.own(f"the worker has sent no heartbeat yet; see {services['worker'].log.path}", "WARNING")
    screen.own(f"all is up after {steps.seconds:.0f} s")
    _welcome(home, prefect, mlflow, screen)


def _take_steps(
    home: Path, services: dict[str, Service], steps: Steps, prefect: str, stopping: threading.Event
) -> bool:
    """All the steps, one after the other or side by side; returns whether the worker has sent a heartbeat."""
    with database_lock(home / "prefect"):
        services["prefect"].start()
        steps.begin("prefect")
        with steps.step(DATABASE):
            _make_database(home, services["mlflow"].env, stopping)
        services["mlflow"].start()
        steps.begin("mlflow")
        for service in wait_for_each([services["prefect"], services["mlflow"]], READY_WITHIN, stopping.is_set):
            steps.end(service.name)
        if not stopping.is_set():
            mark_database_made(home / "prefect")
    stack_file(home, STARTING).unlink(missing_ok=True)
    services["receiver"].start()
    steps.begin("receiver")
    if not stopping.is_set():
        with steps.step("deployments"):
            _bootstrap(home, services["worker"].env, stopping)
    services["receiver"].wait(READY_WITHIN, stopping.is_set)
    steps.end("receiver")
    if stopping.is_set():
        return False
    _settle(prefect)
    _resume_pool(home, f"{prefect}/api/work_pools/{POOL}")
    with steps.step("worker"):
        return start_worker(services, prefect, stopping)


def _welcome(home: Path, prefect: str, mlflow: str, screen: Screen) -> None:
    """What to open, what to press first, what starts by itself, where the logs are, and how to stop."""
    found: list[Row] = []
    with suppress(OSError):  # it is busy; `plumbline status` shows the schedules
        found.append(Row("begin with", "what to press first, and where the results are:", first_steps_page(prefect)))
        found += schedule_rows(read_activity(prefect))
    screen.plain()
    for row in (
        Row("Prefect", deployments_page(prefect)),
        Row("MLflow", pages.experiments_page(mlflow)),
        *found,
        Row("logs", str(stack_file(home, "log"))),
    ):
        screen.row(row)
    screen.plain("Ctrl-C stops everything.")
    screen.plain()


def start_worker(services: dict[str, Service], prefect: str, stopping: threading.Event) -> bool:
    """Start the worker and wait for its first heartbeat; returns whether it came before any process ended."""
    worker = services["worker"]
    worker.start()

    def has_heartbeat() -> bool:
        age = last_heartbeat(prefect)
        return age is not None and age < time.monotonic() - worker.started

    def ended() -> bool:
        return any(service.process is not None and service.process.poll() is not None for service in services.values())

    _until(lambda: has_heartbeat() or ended(), READY_WITHIN, stopping)
    return has_heartbeat()


def _make_database(home: Path, env: Mapping[str, str], stopping: threading.Event) -> None:
    """Make MLflow's database before its server starts: the server's first requests would all make it, and break it."""
    uri = sqlite_uri(home / "mlflow.db")
    with connection.database_lock(uri):  # wait for a process that is making it
        there = (home / "mlflow.db").exists()
    if not there:
        code = f"import sys, {connection.__name__} as here; here.configure(sys.argv[1]); here.check()"
        _run_once(home, "database", [sys.executable, "-c", code, uri], env, stopping)


def _bootstrap(home: Path, env: Mapping[str, str], stopping: threading.Event) -> None:
    """Run `plumbline bootstrap` in a process of its own, which keeps this one small."""
    notify = {NOTIFY_URL: os.environ.get(NOTIFY_URL, "")}
    _run_once(home, "bootstrap", [*COMMAND, "bootstrap"], {**env, **notify}, stopping)


def _run_once(home: Path, name: str, command: list[str], env: Mapping[str, str], stopping: threading.Event) -> None:
    """Run a process to its end, or until the stack is to stop. Raises StackError if it fails."""
    log = Log(stack_file(home, "log") / f"{name}.log")
    process = start(command, env, log.path)
    while process.poll() is None and not stopping.is_set():
        stopping.wait(LOOK_EVERY)
    if process.poll() is None:
        stop(process, 5)
    elif process.returncode:
        last = [line for line in log.lines() if line.strip()][-1:]
        raise StackError(f"the {name} failed: {' '.join(last).removeprefix('plumbline: ')} (see {log.path})")


def _settle(prefect: str) -> None:
    """Correct the states of runs that a killed stack left behind, whose processes are gone.

    A run that was about to start is scheduled again; a suspended run has no process and stays as it is.
    """
    states = {"type": {"any_": list(SETTLED)}, "name": {"not_any_": ["Suspended"]}}
    asked = {"flow_runs": {"state": states}, "work_pools": {"name": {"any_": [POOL]}}}
    for run in call("POST", f"{prefect}/api/flow_runs/filter", asked):
        state = {"type": SETTLED[run["state_type"]], "message": "The stack ended before this run did."}
        call("POST", f"{prefect}/api/flow_runs/{run['id']}/set_state", {"state": state})


def _watch(services: dict[str, Service], screen: Screen, stopping: threading.Event) -> None:
    """Show the logs and restart what ends, until the stack is to stop."""
    while not stopping.wait(LOOK_EVERY):
        for service in services.values():
            screen.hear(service.name, service.log.lines())
            revive(service, screen)


def revive(service: Service, screen: Screen) -> None:
    """Restart a process that has ended, after a pause that doubles. Raises StackError if it keeps ending early."""
    now = time.monotonic()
    if service.process is None:
        if now >= service.again_at:
            service.start()
        return
    if service.process.poll() is None:
        return
    service.deaths = service.deaths + 1 if now - service.started < SHORT_LIFE else 1
    if service.deaths >= DEATHS:
        raise StackError(f"{service.name} ended {DEATHS} times in a row; see {service.log.path}")
    wait = 2.0 ** (service.deaths - 1) / 2
    code = service.process.returncode
    screen.own(f"{service.name} ended with code {code}; started again in {wait:g} s", "WARNING")
    service.process, service.again_at = None, now + wait


def _stop(home: Path, services: dict[str, Service], screen: Screen, stopping: threading.Event) -> None:
    """End the runs, then the processes one after the other; a second request to stop cuts the waiting short."""
    stopping.clear()
    with suppress(OSError):  # the terminal may be gone
        screen.own(
            f"stopping; runs and commands at work are asked to end, within {STOPPED_WITHIN['runs']:g} s "
            "(Ctrl-C again: at once)"
        )
    with _no_further_runs(home, services["prefect"]):
        _end_runs(home, stopping)
        _end(services["worker"], screen, stopping)
    for name in ("receiver", "mlflow", "prefect"):
        _end(services[name], screen, stopping)
    end_marked(home)
    stop_clients(home, STOPS_WITHIN)  # those that joined meanwhile


@contextmanager
def _no_further_runs(home: Path, prefect: Service) -> Iterator[None]:
    """Pause the work pool meanwhile: queued runs wait for the next `up`, instead of being started and ended at once.

    A file notes that it was the stack that paused it, so that the next `up` can resume it if this one cannot.
    """
    pool = prefect.health.replace("/health", f"/work_pools/{POOL}")
    with suppress(OSError):
        if not call("GET", pool, None)["is_paused"]:
            stack_file(home, PAUSED).touch()
            call("PATCH", pool, {"is_paused": True})
    try:
        yield
    finally:
        with suppress(OSError):
            _resume_pool(home, pool)


def _resume_pool(home: Path, pool: str) -> None:
    if stack_file(home, PAUSED).exists():
        call("PATCH", pool, {"is_paused": False})
        stack_file(home, PAUSED).unlink()


def _end_runs(home: Path, stopping: threading.Event) -> None:
    """Ask the runs at work to end, and wait for them: the worker would kill them before they report their end.

    The same for commands in other terminals, such as `plumbline sweep`, which would wait for the servers forever.
    """
    asked: set[int] = set()

    def none_left() -> bool:
        commands = clients(home)
        left = commands.union(marked(home, "PREFECT__FLOW_RUN_ID"))
        for pid in left - asked:
            with suppress(ProcessLookupError, PermissionError):
                if pid in commands or os.getsid(pid) == pid:  # not a run's own children
                    os.kill(pid, signal.SIGTERM)
                    asked.add(pid)
        return not left & asked

    _until(none_left, STOPPED_WITHIN["runs"], stopping)
    stop_clients(home, 0.0)


def _end(service: Service, screen: Screen, stopping: threading.Event) -> None:
    process = service.process
    if process is not None:
        process.terminate()
        _until(lambda: process.poll() is not None, STOPPED_WITHIN[service.name], stopping)
        process.kill()
        process.wait()
    with suppress(OSError):
        screen.hear(service.name, service.log.lines())


def _until(condition: Callable[[], bool], within: float, stopping: threading.Event) -> None:
    ends = time.monotonic() + within
    while not condition() and time.monotonic() < ends and not stopping.wait(LOOK_EVERY / 2):
        pass
