"""Commands that use a running stack: they find its servers, and are stopped with it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from alignment.stages.store import write_json
from flows.stack.clients import clients, join
from flows.stack.control import down as stop_stack
from flows.stack.services import stack_file
from flows.stack.state import lock_home

PROJECT = Path(__file__).parents[3]
ADDRESSES = {"prefect": "http://127.0.0.1:1", "mlflow": "http://127.0.0.1:2", "receiver": "http://127.0.0.1:3"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and its signals are Linux's")
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
def test_a_client_is_known_for_as_long_as_it_lives(home: Path) -> None:
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
def test_the_clients_of_a_stack_that_was_killed_are_stopped_by_down(home: Path) -> None:
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
