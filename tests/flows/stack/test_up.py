"""What `up` does beside starting processes: it restarts them, waits for the worker, and makes the database."""

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from alignment.errors import StackError
from flows.stack.logs import Log
from flows.stack.processes import MARK, end_marked
from flows.stack.services import Service
from flows.stack.telling import Screen
from flows.stack.up import DEATHS, _make_database, revive, start_worker

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_process_that_keeps_dying_is_given_up_with_its_log_named(home: Path) -> None:
    service = Service("mlflow", [sys.executable, "-c", "raise SystemExit(3)"], os.environ, Log(home / "mlflow.log"))
    screen = Screen(Console(quiet=True))
    for death in range(1, DEATHS):
        service.start()
        assert service.process is not None
        service.process.wait()
        revive(service, screen)
        assert (service.process, service.deaths) == (None, death)
    service.start()
    assert service.process is not None
    service.process.wait()
    with pytest.raises(StackError, match=r"mlflow ended 5 times in a row; see .*mlflow\.log"):
        revive(service, screen)


Begin = Callable[[list[str]], Service]


@pytest.fixture
def worker(home: Path) -> Iterator[Begin]:
    """A worker with the given command, not started yet."""
    made: list[Service] = []

    def make(command: list[str]) -> Service:
        made.append(Service("worker", command, os.environ | {MARK: str(home)}, Log(home / "worker.log")))
        return made[-1]

    yield make
    end_marked(home)
    for service in made:
        assert service.process is not None
        service.process.wait()


def test_a_worker_has_started_once_it_sends_a_heartbeat(worker: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    beats = iter([None, 60.0, 0.0])  # none yet; one that an earlier worker of the name left; its own
    monkeypatch.setattr("flows.stack.up.last_heartbeat", lambda _: next(beats, 0.0))
    time.sleep(0.05)
    assert start_worker({"worker": worker(SLEEP)}, "http://prefect", threading.Event())
    assert next(beats, "all were asked for") == "all were asked for"
    assert time.monotonic() - began < 10


def test_a_worker_without_a_heartbeat_has_not(worker: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.stack.up.last_heartbeat", lambda _: 60.0)
    monkeypatch.setattr("flows.stack.up.READY_WITHIN", 0.5)
    assert not start_worker({"worker": worker(SLEEP)}, "http://prefect", threading.Event())


@pytest.mark.parametrize("name", ["worker", "prefect"])
def test_nobody_waits_for_a_worker_while_a_process_has_ended(
    worker: Begin, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The watcher starts it again."""
    monkeypatch.setattr("flows.stack.up.last_heartbeat", lambda _: None)
    services = {"prefect": worker(SLEEP), "worker": worker(SLEEP)}
    services[name].command = [sys.executable, "-c", ""]
    services["prefect"].start()
    began = time.monotonic()
    assert not start_worker(services, "http://prefect", threading.Event())
    assert time.monotonic() - began < 60


def test_nobody_waits_for_a_worker_once_asked_to_stop(worker: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.stack.up.last_heartbeat", lambda _: None)
    stopping = threading.Event()
    stopping.set()
    began = time.monotonic()
    assert not start_worker({"worker": worker(SLEEP)}, "http://prefect", stopping)
    assert time.monotonic() - began < 60


def test_mlflow_s_database_is_there_before_its_server(tmp_path: Path) -> None:
    """The server's first requests would make it all at once, and leave it broken."""
    env = os.environ | {"PLUMBLINE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    (tmp_path / "stack" / "log").mkdir(parents=True)
    _make_database(tmp_path, env, threading.Event())
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM registered_models").fetchone() == (0,)
    made = (tmp_path / "mlflow.db").stat().st_mtime_ns
    _make_database(tmp_path, env, threading.Event())
    assert (tmp_path / "mlflow.db").stat().st_mtime_ns == made
