"""The stack on one machine, part by part: ports, secrets, the log, one stack a home, and nothing left behind."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from alignment.errors import ConfigError, StackError
from alignment.stages.store import is_alive, write_json
from flows.stack.clients import clients, join
from flows.stack.control import down as stop_stack
from flows.stack.control import status as show_status
from flows.stack.logs import Log, tidy
from flows.stack.processes import MARK, end_marked, free_port, marked, start
from flows.stack.services import Ports, Service, make_services, project_folder, secret, stack_file
from flows.stack.state import lock_home, running
from flows.stack.up import DEATHS, _make_database, revive, start_worker

PROJECT = Path(__file__).parents[3]
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
ADDRESSES = {"prefect": "http://127.0.0.1:1", "mlflow": "http://127.0.0.1:2", "receiver": "http://127.0.0.1:3"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and its signals are Linux's")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_marked(tmp_path)


@pytest.fixture
def begin(home: Path) -> Callable[[list[str]], "subprocess.Popen[bytes]"]:
    return lambda command: start(command, os.environ | {MARK: str(home)}, home / "log")


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "it did not come about within 10 s"
        time.sleep(0.02)


def test_a_port_that_is_taken_is_exchanged_for_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
    assert free_port(port) == port


@linux
def test_what_carries_the_homes_mark_is_found_and_ended_whoever_started_it(
    home: Path, begin: Callable[[list[str]], "subprocess.Popen[bytes]"]
) -> None:
    """A run's own child in a session of its own, whose parents are gone."""
    orphan = begin([sys.executable, "-c", f"import subprocess as s; s.Popen({SLEEP!r}, start_new_session=True)"])
    orphan.wait()
    until(lambda: len(marked(home)) == 1)
    assert marked(home / "other") == []
    assert end_marked(home) == 1
    assert marked(home) == []


@linux
def test_a_parent_that_is_killed_takes_its_children_along(home: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from flows.stack.processes import start\n"
        f"print(start({SLEEP!r}, os.environ, Path({str(home)!r}) / 'log').pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=PROJECT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.communicate()
    until(lambda: not is_alive(child) or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z")


def test_a_secret_is_made_once_for_its_owner_alone_and_is_a_key(home: Path) -> None:
    from cryptography.fernet import Fernet

    first = secret(home, "encryption")
    assert secret(home, "encryption") == first != secret(home, "webhook")
    assert (stack_file(home, "secret") / "encryption").stat().st_mode & 0o777 == 0o600
    assert stack_file(home, "secret").stat().st_mode & 0o777 == 0o700
    Fernet(first)


def test_one_stack_a_home(home: Path) -> None:
    assert running(home) is None
    with lock_home(home):
        write_json(stack_file(home, "stack.json"), {"pid": os.getpid(), **ADDRESSES})
        with pytest.raises(StackError, match=r"up already in .*: Prefect http://127.0.0.1:1, .*`plumbline down`"):
            lock_home(home).__enter__()
    assert running(home) is None
    with lock_home(home):
        pass


def test_what_a_killed_stack_left_is_not_taken_for_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack_file(home, "lock").parent.mkdir()
    stack_file(home, "lock").touch()
    write_json(stack_file(home, "stack.json"), {"pid": os.getpid(), **ADDRESSES})
    assert running(home) is None
    assert show_status(home, Console()) == 1
    assert "not up in" in capsys.readouterr().out


SERVERS = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PLUMBLINE_WEBHOOK_URL")


@pytest.mark.parametrize(
    ("given", "joined"),
    [({}, True), ({"MLFLOW_TRACKING_URI": "http://elsewhere:5000"}, False), ({"PREFECT_API_URL": "http://far"}, False)],
)
def test_other_commands_join_the_stack_of_their_home_unless_a_server_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], joined: bool
) -> None:
    """Half of each would put a run's record where its deployment does not look."""
    for name in SERVERS:
        monkeypatch.setenv(name, given.get(name, ""))  # so that it is put back
        if name not in given:
            monkeypatch.delenv(name)
    with lock_home(home):
        write_json(stack_file(home, "stack.json"), {"pid": os.getpid(), **ADDRESSES})
        join(home)
    theirs = {"PREFECT_API_URL": f"{ADDRESSES['prefect']}/api", "MLFLOW_TRACKING_URI": ADDRESSES["mlflow"]}
    found = {name: os.environ[name] for name in SERVERS[:2] if name in os.environ}
    assert found == (theirs if joined else given)


JOIN = """
import sys
from pathlib import Path
from flows.stack.clients import join
join(Path(sys.argv[1]))
print("joined", flush=True)
sys.stdin.read()
"""


@linux
def test_the_stack_knows_who_joined_it_for_as_long_as_they_live(home: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in SERVERS}
    with lock_home(home):
        write_json(stack_file(home, "stack.json"), {"pid": os.getpid(), **ADDRESSES})
        command = [sys.executable, "-c", JOIN, str(home)]
        with subprocess.Popen(command, env=env, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"joined\n"
            assert clients(home) == {other.pid}
            assert clients(home) == {other.pid}
            other.kill()
    assert clients(home) == set()


@linux
def test_who_joined_a_stack_that_was_killed_is_told_by_down(home: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in SERVERS}
    with lock_home(home):
        write_json(stack_file(home, "stack.json"), {"pid": os.getpid(), **ADDRESSES})
        command = [sys.executable, "-c", JOIN, str(home)]
        other = subprocess.Popen(command, env=env, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdout is not None
        assert other.stdout.readline() == b"joined\n"
    with other:
        assert stop_stack(home, Console(quiet=True)) == 0
        assert other.wait(10) == -signal.SIGTERM


def test_a_request_to_stop_is_an_event_and_the_handlers_are_put_back(home: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with lock_home(home) as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_processes_are_told_of_their_own_servers_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    monkeypatch.setenv("PREFECT_API_KEY", "somebody's")
    services = make_services(home, Ports(1, 2, 3), PROJECT)
    assert list(services) == ["prefect", "mlflow", "receiver", "worker"]
    for service in services.values():
        assert "elsewhere" not in " ".join(service.env.values())
        assert "PREFECT_API_KEY" not in service.env
        assert "0.0.0.0" not in service.command
        assert secret(home, "encryption") not in service.command
    assert services["worker"].env["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert services["worker"].env["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:2"
    assert services["mlflow"].env["MLFLOW_SERVER_ALLOWED_HOSTS"] == "127.0.0.1:2,localhost:2"
    assert "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY" not in services["worker"].env


def test_mlflows_own_names_of_its_settings_are_the_ones_that_are_set(home: Path) -> None:
    """`mlflow server` hands them to uvicorn; they are not public, so that an upgrade may rename them."""
    from mlflow import environment_variables as variables
    from mlflow.server import constants

    known = {getattr(constants, name) for name in vars(constants) if name.endswith("_ENV_VAR")} | {
        item.name for item in vars(variables).values() if hasattr(item, "name")
    }
    set_here = {name for name in make_services(home, Ports(), PROJECT)["mlflow"].env if "MLFLOW_" in name}
    assert set_here - set(os.environ) - known == set()


def test_the_project_is_the_folder_of_prefect_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_PROJECT", raising=False)
    assert project_folder() == PROJECT
    monkeypatch.setenv("PLUMBLINE_PROJECT", str(tmp_path))
    with pytest.raises(ConfigError, match=r"holds no prefect\.yaml"):
        project_folder()


def test_a_process_that_keeps_dying_is_given_up_with_its_log_named(home: Path) -> None:
    service = Service("mlflow", [sys.executable, "-c", "raise SystemExit(3)"], os.environ, Log(home / "mlflow.log"))
    console = Console(quiet=True)
    for death in range(1, DEATHS):
        service.start()
        assert service.process is not None
        service.process.wait()
        revive(service, console)
        assert (service.process, service.deaths) == (None, death)
    service.start()
    assert service.process is not None
    service.process.wait()
    with pytest.raises(StackError, match=r"mlflow ended 5 times in a row; see .*mlflow\.log"):
        revive(service, console)


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


def test_a_worker_is_heard_of_by_a_heartbeat_since_its_start(worker: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    beats = iter([None, 60.0, 0.0])  # none yet; one that an earlier worker of the name left; its own
    monkeypatch.setattr("flows.stack.up.last_heartbeat", lambda _: next(beats, 0.0))
    time.sleep(0.05)
    assert start_worker({"worker": worker(SLEEP)}, "http://prefect", threading.Event())
    assert next(beats, "all were asked for") == "all were asked for"
    assert time.monotonic() - began < 10


def test_a_worker_of_which_nothing_is_heard_is_said_to_be_silent(
    worker: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_log_is_read_by_whole_lines_and_begun_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "worker.log").write_text("before\n", encoding="utf-8")
    log = Log(home / "worker.log")
    with log.path.open("a", encoding="utf-8", buffering=1) as file:
        file.write("one\ntw")
        assert list(log.lines()) == ["one"]
        file.write("o\n")
        assert list(log.lines()) == ["two"]
        monkeypatch.setattr("flows.stack.logs.MAX_BYTES", 10)
        file.write("a long line\n")
        assert list(log.lines()) == ["a long line"]
        file.write("after\n")
    assert list(log.lines()) == ["after"]
    assert (home / "worker.log.1").read_text(encoding="utf-8") == "one\ntwo\na long line\n"
    assert (home / "worker.log").read_text(encoding="utf-8") == "after\n"


@pytest.mark.parametrize(
    ("source", "line", "shown"),
    [
        (
            "worker",
            "12:00:01.123 | INFO    | Flow run 'align-quick' - texts computed",
            ("align-quick", "INFO", "texts computed"),
        ),
        (
            "worker",
            "12:00:01.123 | ERROR   | Task run 'base-0' - Task run failed: no space",
            ("base-0", "ERROR", "Task run failed: no space"),
        ),
        ("worker", "12:00:01.123 | INFO    | Flow run 'x' - Executing flow 'align' for flow run 'x'...", None),
        ("worker", "12:00:01.123 | DEBUG   | Flow run 'x' - anything", None),
        ("worker", "Traceback (most recent call last):", None),
        ("prefect", "12:00:01.123 | INFO    | prefect.server - anything", None),
        (
            "prefect",
            "12:00:01.123 | ERROR   | prefect.server - database is locked",
            ("prefect", "ERROR", "database is locked"),
        ),
        ("prefect", "12:00:01.123 | ERROR   | prefect.server.utilities.messaging - Failed in consume_loop", None),
        (
            "mlflow",
            "2026/11/23 12:00:01 WARNING mlflow.store: slow",
            ("mlflow", "WARNING", "2026/11/23 12:00:01 WARNING mlflow.store: slow"),
        ),
        (
            "receiver",
            "2026-11-23 12:00:01,123 champion of m is version 3",
            ("receiver", "INFO", "champion of m is version 3"),
        ),
        ("mlflow", "INFO:     127.0.0.1:5000 - GET /", None),
    ],
)
def test_people_see_what_runs_tell_and_what_goes_wrong(
    source: str, line: str, shown: tuple[str, str, str] | None
) -> None:
    assert tidy(source, line) == shown


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


def test_a_stack_that_starts_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PLUMBLINE_WEBHOOK_URL"):
        monkeypatch.setenv(name, "")
    with lock_home(tmp_path):
        write_json(stack_file(tmp_path, "stack.json"), {"pid": 1, "prefect": "p", "mlflow": "m", "receiver": "r"})
        stack_file(tmp_path, "starting").touch()
        waiting = threading.Thread(target=join, args=(tmp_path,))
        waiting.start()
        waiting.join(0.5)
        assert not os.environ["PREFECT_API_URL"]
        stack_file(tmp_path, "starting").unlink()
        waiting.join(10)
        assert os.environ["PREFECT_API_URL"] == "p/api"
