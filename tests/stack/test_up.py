"""`plumbline up` with its real processes: it answers, it comes back, it says where it is, and it leaves nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows.stack.processes import answers, end_marked, marked
from flows.stack.state import State, running
from tests.stack.processes import READY_WITHIN, command_of, quiet_ports

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc"),
]

PROJECT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from flows.cli.commands import main; main()")
ANSWERS_WITHIN = 90.0  # seconds
ENDS_WITHIN = 75.0

SLOW = '''
import time
from prefect import flow

@flow
def wait(seconds: float = 300.0) -> None:
    """Wait."""
    time.sleep(seconds)
'''


@dataclass
class Stack:
    """`plumbline up` of one home, run as a person would."""

    home: Path
    env: dict[str, str]
    process: "subprocess.Popen[str] | None" = None
    outputs: list[Path] = field(default_factory=list)

    def up(self) -> float:
        """Start it; returns the seconds until both addresses answer."""
        started = time.monotonic()
        self.outputs.append(self.home / f"up-{len(self.outputs)}.txt")
        with self.outputs[-1].open("w") as output:
            names = ("prefect", "mlflow", "receiver")
            ports = [f"--{name}-port={port}" for name, port in zip(names, quiet_ports(3), strict=True)]
            self.process = subprocess.Popen(
                [*COMMAND, "up", *ports], env=self.env, cwd=PROJECT, stdout=output, stderr=output, text=True
            )
        until(lambda: answers(self.address("prefect")) and answers(self.address("mlflow")), ANSWERS_WITHIN, self.output)
        return time.monotonic() - started

    def ready(self) -> None:
        """Wait until it says what to click; the worker is known by then."""
        until(lambda: "Ctrl-C stops everything" in self.output(), READY_WITHIN, self.output)
        until(lambda: self.run("status").returncode == 0, 20, self.output)

    def output(self) -> str:
        return self.outputs[-1].read_text()

    def state(self) -> State | None:
        return running(self.home)

    def address(self, name: str) -> str:
        file = self.home / "stack" / "stack.json"
        return str(json.loads(file.read_text())[name]) if file.exists() else "http://127.0.0.1:9"

    def prefect(self, path: str, body: Any = None, method: str = "GET") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.address('prefect')}/api{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*COMMAND, *arguments], env=self.env, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False
        )

    def end(self, number: int = signal.SIGINT) -> int:
        """Send the signal and wait; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(ENDS_WITHIN)


def until(condition: Callable[[], bool], within: float, output: Callable[[], str] = str) -> None:
    ends = time.monotonic() + within
    while not condition():
        assert time.monotonic() < ends, f"it did not come about within {within} s\n{output()}"
        time.sleep(0.2)


def name_of(pid: int) -> str:
    return " ".join(command_of(pid))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that is up; the tests share it, so that each is left as it was found: up and ready."""
    home = tmp_path_factory.mktemp("home")
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    stack = Stack(home, keep | {"PLUMBLINE_HOME": str(home)})
    stack.up()
    stack.ready()
    yield stack
    if stack.process is not None and stack.process.poll() is None:
        stack.process.terminate()
        stack.process.wait(ENDS_WITHIN)
    end_marked(home)


def test_both_pages_and_the_receiver_are_served(stack: Stack) -> None:
    assert answers(stack.address("prefect")), "the page"
    assert answers(f"{stack.address('mlflow')}/"), "the page"
    assert answers(f"{stack.address('receiver')}/health")
    settings = json.loads(urllib.request.urlopen(f"{stack.address('prefect')}/ui-settings").read())
    assert settings["api_url"] == "/api", "a page of another host could not reach it"


def test_the_bootstrap_was_applied(stack: Stack) -> None:
    names = {f"{item['entrypoint']}" for item in stack.prefect("/deployments/filter", {}, "POST")}
    assert "flows/align.py:align" in names
    assert stack.prefect("/v2/concurrency_limits/gpu")["limit"] >= 1
    again = stack.run("bootstrap")
    assert again.returncode == 0, again.stderr
    assert {line.split()[0] for line in again.stdout.splitlines()} == {"left", "skipped"}
    assert "skipped  notifications" in again.stdout, "they are off until an address is given"


def schedules(stack: Stack) -> list[dict[str, Any]]:
    """Those of `retrain`."""
    return [
        schedule
        for item in stack.prefect("/deployments/filter", {}, "POST")
        for schedule in item["schedules"]
        if item["name"] == "retrain"
    ]


def test_it_tells_each_step_of_its_start_and_what_to_open(stack: Stack) -> None:
    lines = stack.output().splitlines()
    steps = [line for line in lines if " of 6 " in line]
    assert [line.split()[2:5] for line in steps] == [[str(number), "of", "6"] for number in range(1, 7)]
    assert all(re.match(r"\d\d:\d\d:\d\d up ", line) for line in steps)
    opened = {line.split("  ")[0]: line.split()[-1] for line in lines if not re.match(r"\d\d:", line) and line}
    assert list(opened) == ["Prefect", "MLflow", "begin with", "", "schedule", "logs", "Ctrl-C stops everything."]
    for name in ("Prefect", "MLflow", ""):
        as_a_browser = urllib.request.Request(opened[name].partition("#")[0], headers={"Accept": "text/html"})
        with urllib.request.urlopen(as_a_browser, timeout=30) as answer:
            assert answer.status == 200, name


def test_a_schedule_is_shipped_paused_and_queues_runs_once_it_is_turned_on(stack: Stack) -> None:
    """With SQLAlchemy 2.1 Prefect 3.8's scheduler fails at every round, and nothing but its log says so."""
    (schedule,) = schedules(stack)
    assert not schedule["active"]
    path = f"/deployments/{schedule['deployment_id']}/schedules/{schedule['id']}"
    stack.prefect(path, {"active": True}, "PATCH")
    queued = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "deployments": {"name": {"any_": ["retrain"]}}}
    until(lambda: stack.prefect("/flow_runs/count", queued, "POST") > 0, 60, stack.output)
    assert stack.run("bootstrap").returncode == 0
    assert schedules(stack)[0]["active"], "what a person turned on stays so"
    stack.prefect(path, {"active": False}, "PATCH")


def test_status_shows_what_runs(stack: Stack) -> None:
    status = stack.run("status")
    assert status.returncode == 0, status.stdout
    lines = status.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        [name, "healthy"] for name in ("prefect", "mlflow", "receiver", "worker")
    ]
    assert any(line.startswith("schedule    retrain weekly") and "is paused" in line for line in lines)


def test_a_second_up_says_that_it_is_up_already(stack: Stack) -> None:
    second = stack.run("up")
    assert second.returncode == 1
    assert len(second.stderr.strip().splitlines()) == 1
    assert f"up already in {stack.home}: Prefect {stack.address('prefect')}" in second.stderr


def test_a_server_that_dies_is_started_again(stack: Stack) -> None:
    (server,) = [pid for pid in marked(stack.home) if "flows.stack.prefect_app" in name_of(pid)]
    os.kill(server, signal.SIGKILL)
    until(lambda: not answers(f"{stack.address('prefect')}/api/health"), 10)
    until(lambda: answers(f"{stack.address('prefect')}/api/health"), ANSWERS_WITHIN, stack.output)
    assert "prefect ended with code -9" in stack.output()
    until(lambda: stack.run("status").returncode == 0, 60, stack.output)


def test_ctrl_c_ends_runs_at_work_and_leaves_no_process_and_the_next_up_finds_everything(stack: Stack) -> None:
    (stack.home / "waiting.py").write_text(SLOW)
    flow_run = start_slow_run(stack)
    until(lambda: stack.prefect(f"/flow_runs/{flow_run}")["state"]["type"] == "RUNNING", 60, stack.output)
    assert any("prefect" in name_of(pid) and "engine" in name_of(pid) for pid in marked(stack.home))

    assert stack.end(signal.SIGINT) == 0, stack.output()
    assert {pid: name_of(pid) for pid in marked(stack.home)} == {}
    assert stack.state() is None
    assert stack.run("status").returncode == 1

    assert stack.up() < ANSWERS_WITHIN
    stack.ready()
    assert stack.prefect(f"/flow_runs/{flow_run}")["state"]["type"] == "CRASHED"


def test_kill_9_of_up_leaves_nothing_that_the_next_one_minds(stack: Stack) -> None:
    assert stack.process is not None
    stack.process.kill()
    stack.process.wait()
    until(lambda: marked(stack.home) == [], 30)
    assert stack.state() is None
    stack.up()
    stack.ready()


def test_down_stops_it_from_elsewhere_and_a_second_down_has_nothing_to_do(stack: Stack) -> None:
    assert stack.run("down").stdout == "stopped\n"
    assert stack.process is not None
    assert stack.process.wait(ENDS_WITHIN) == 0
    assert marked(stack.home) == []
    again = stack.run("down")
    assert (again.returncode, again.stdout) == (0, "not up\n")
    stack.up()
    stack.ready()


def test_down_ends_a_command_that_waits_in_another_terminal(stack: Stack) -> None:
    """It would wait for servers that are gone; and Prefect would have it wait for its slot before it ends."""
    slot = {"names": ["gpu"], "slots": 1, "mode": "concurrency"}
    lease = stack.prefect("/v2/concurrency_limits/increment-with-lease", slot | {"lease_duration": 300}, "POST")
    with (stack.home / "command.txt").open("w") as output:
        command = subprocess.Popen([*COMMAND, "run"], env=stack.env, cwd=PROJECT, stdout=output, stderr=output)

    def said() -> str:
        return (stack.home / "command.txt").read_text()

    until(lambda: "waits for a GPU slot" in said(), 60, said)
    time.sleep(7)  # until it has asked again
    assert stack.run("down").stdout == "stopped\n"
    assert command.wait(ENDS_WITHIN) == 130, said()
    assert said().splitlines()[-1] == "plumbline: interrupted; finished stages stay in the store, run again to go on"
    assert "failed to process item" not in said()
    assert stack.process is not None
    assert stack.process.wait(ENDS_WITHIN) == 0

    stack.up()
    stack.ready()
    (run,) = stack.prefect("/flow_runs/filter", {"flows": {"name": {"any_": ["align"]}}}, "POST")
    assert run["state"]["type"] == "CRASHED"
    stack.prefect("/v2/concurrency_limits/decrement-with-lease", {"lease_id": lease["lease_id"]}, "POST")


def test_two_at_once(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    both = [
        subprocess.Popen(
            [*COMMAND, "up"],
            env=env | {"PLUMBLINE_HOME": str(tmp_path)},
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    until(lambda: any(process.poll() is not None for process in both), 60)
    (refused,) = [process for process in both if process.poll() is not None]
    (other,) = [process for process in both if process is not refused]
    _, complaint = refused.communicate()
    other.send_signal(signal.SIGTERM)
    other.communicate(timeout=ENDS_WITHIN)
    assert refused.returncode == 1
    assert "up already in" in complaint
    assert other.returncode == 0
    assert marked(tmp_path) == []


def start_slow_run(stack: Stack) -> str:
    """A run of a flow that waits, on the stack's own worker; returns its id."""
    flow = stack.prefect("/flows/", {"name": "wait"}, "POST")
    deployment = stack.prefect(
        "/deployments/",
        {
            "name": "wait",
            "flow_id": flow["id"],
            "entrypoint": "waiting.py:wait",
            "work_pool_name": "local",
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(stack.home)}}],
        },
        "POST",
    )
    return str(stack.prefect(f"/deployments/{deployment['id']}/create_flow_run", {}, "POST")["id"])
