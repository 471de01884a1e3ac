"""A stack under test: `plumbline up` in a home of its own, and the calls that a person would make in a browser."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.flows.small import OPEN_GATES, SMALL
from tests.stack.processes import READY_WITHIN, command_of, pids, quiet_ports

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Passwords:
    """What a person types to sign in: one line for Prefect, a user and a password for MLflow."""

    prefect: str
    mlflow: tuple[str, str]


class Machine:
    """A running stack: its home, its addresses, what its servers ask for, and what they say."""

    def __init__(
        self,
        home: Path,
        addresses: Mapping[str, str],
        service: Callable[[str], list[int]],
        passwords: Passwords | None = None,
    ) -> None:
        self.home = home
        self.prefect = addresses["prefect"]
        self.mlflow = addresses["mlflow"]
        self.service = service
        """The processes of a service, by its name."""
        self.passwords = passwords
        self._headers = {"Content-Type": "application/json"}
        if passwords is not None:
            self._headers["Authorization"] = "Basic " + b64encode(passwords.prefect.encode()).decode()

    def api(self, path: str, body: Any = None, method: str = "") -> Any:
        """A call to Prefect's API, tried again while the server is unreachable."""
        data = None if body is None else json.dumps(body).encode()
        method = method or ("GET" if body is None else "POST")
        request = urllib.request.Request(f"{self.prefect}/api/{path}", data, self._headers, method=method)
        ends = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    text = answer.read()
                    return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code == 503 and time.monotonic() < ends:  # SQLite was locked
                    time.sleep(0.5)
                    continue
                raise AssertionError(f"{path}: {error.code} {error.read().decode()[:500]}") from error
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if time.monotonic() > ends:
                    raise
                time.sleep(0.5)

    def run(self, name: str, parameters: dict[str, Any]) -> str:
        """Start a deployment's run, as the form does; returns its id."""
        deployment = self.api(f"deployments/name/{name}/{name}")
        body = {"parameters": parameters, "enforce_parameter_schema": True, "state": {"type": "SCHEDULED"}}
        return str(self.api(f"deployments/{deployment['id']}/create_flow_run", body)["id"])

    def set_state(self, run: str, kind: str, name: str) -> None:
        """Ask for a state, as the buttons Cancel and Retry do."""
        state = {"type": kind, "name": name, "message": "asked for in a test"}
        self.api(f"flow_runs/{run}/set_state", {"state": state, "force": kind == "SCHEDULED"})

    def retry(self, run: str) -> None:
        """Press Retry, once the crash was reported twice: the worker's report would end an earlier retry."""

        def reported_twice() -> bool:
            states = self.api(f"flow_run_states/?flow_run_id={run}")
            return [state["type"] for state in states].count("CRASHED") > 1

        with suppress(AssertionError):  # one killed with its worker is reported once
            wait_for(reported_twice, 20, "the second report")
        self.set_state(run, "SCHEDULED", "AwaitingRetry")

    def kind(self, run: str) -> str:
        """The type of a run's state."""
        return str(self.api(f"flow_runs/{run}")["state_type"])

    def artifact(self, run: str, key: str) -> dict[str, Any]:
        """One of a run's artifacts, as it stands; empty before there is one."""
        wanted = {"flow_runs": {"id": {"any_": [run]}}, "artifacts": {"key": {"any_": [key]}}}
        found: list[dict[str, Any]] = self.api("artifacts/filter", wanted)
        return found[0] if found else {}

    def messages(self, state: str) -> dict[str, str]:
        """The runs whose state has a name, each with what its state says."""
        found = self.api("flow_runs/filter", {"flow_runs": {"state": {"name": {"any_": [state]}}}})
        return {str(run["id"]): str(run["state"]["message"] or "") for run in found}

    def kinds(self, runs: list[str]) -> list[str]:
        """The types of several runs' states, in their order, by one call."""
        found = self.api("flow_runs/filter", {"flow_runs": {"id": {"any_": runs}}})
        kinds = {str(run["id"]): str(run["state_type"]) for run in found}
        return [kinds[run] for run in runs]

    def end(self, run: str, within: float = 240.0) -> str:
        """Wait for a run's end; returns the type of its last state."""
        wait_for(lambda: self.kind(run) in FINAL, within, f"the end of run {run}")
        return self.kind(run)

    def slots(self) -> int:
        """How many GPU slots are taken."""
        return int(self.api("v2/concurrency_limits/gpu")["active_slots"])

    def kill(self, service: str) -> None:
        """End a service without a warning; fails where none of its processes is there."""
        found = self.service(service)
        assert found, f"no process of {service} was found"
        for pid in found:
            with suppress(ProcessLookupError):  # whoever keeps the service up may be first
                os.kill(pid, signal.SIGKILL)

    def pids(self, run: str) -> list[int]:
        """The processes of a flow run."""
        return [pid for pid, env in environments() if env.get("PREFECT__FLOW_RUN_ID") == run]

    def mlflow_runs(self, flow_run: str) -> list[Any]:
        """The MLflow runs of a flow run, the newest first."""
        from mlflow import MlflowClient

        client = MlflowClient(self.mlflow)
        everywhere = [found.experiment_id for found in client.search_experiments()]
        return list(client.search_runs(everywhere, f"tags.`prefect.flow_run_id` = '{flow_run}'"))

    def manifests(self, stage: str) -> list[dict[str, Any]]:
        """What the store says of the finished results of a stage."""
        return [json.loads(file.read_text()) for file in self.home.glob(f"store/{stage}/*/manifest.json")]

    def checkpoint(self) -> int:
        """The step of the last checkpoint of a policy in training; 0 without any."""
        steps = self.home.glob("store/.work/policy-*/checkpoint-*/trainer_state.json")
        return max((int(file.parent.name.rpartition("-")[2]) for file in steps), default=0)


@contextmanager
def machine(home: Path, *arguments: str, **environment: str) -> Iterator[Machine]:
    """`plumbline up` in a home, until the end of the block."""
    process = start(home, *arguments, **environment)
    try:
        wait_for_ready(home, process)
        addresses = json.loads((home / "stack" / "stack.json").read_text(encoding="utf-8"))
        yield Machine(home, addresses, lambda service: pids_of(home, service))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(90)


def start(home: Path, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
    """Start `plumbline up` on free ports; its output goes to `home`.log."""
    home.mkdir(parents=True, exist_ok=True)
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME"):
        environment.setdefault(name, "")
    env = {name: value for name, value in (os.environ | environment).items() if value or name not in environment}
    names = ("prefect", "mlflow", "receiver")
    ports = [f"--{name}-port={port}" for name, port in zip(names, quiet_ports(len(names)), strict=True)]
    with home.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", "from flows.cli.commands import main; main()", "up", *(arguments or ports)],
            env=env | {"PLUMBLINE_HOME": str(home), "CUDA_VISIBLE_DEVICES": ""},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def pids_of(home: Path, service: str) -> list[int]:
    """The processes of a service of the stack that is up in a home."""
    words = {"prefect": ("flows.stack.prefect_app:create_app",), "worker": ("worker", "start")}[service]
    return [
        pid
        for pid, env in environments()
        if env.get("PLUMBLINE_HOME") == str(home)
        and "PREFECT__FLOW_RUN_ID" not in env
        and set(words) <= set(command_of(pid))
    ]


def wait_for_ready(home: Path, process: "subprocess.Popen[bytes]", within: float = READY_WITHIN) -> None:
    """Wait until the stack has started; where it ended instead, fail with what it said."""

    def ready() -> bool:
        said = home.with_suffix(".log").read_text(encoding="utf-8", errors="replace")
        assert process.poll() is None, f"up ended with code {process.returncode}: {said[-2_000:]}"
        return "Ctrl-C stops everything." in said

    wait_for(ready, within, "the stack")


def wait_for(happened: Callable[[], bool], within: float, what: str, every: float = 0.25) -> float:
    """Wait for something; returns the seconds that it took, and fails where that is too long."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < within, f"{what} did not come within {within:.0f} s"
        time.sleep(every)
    return time.monotonic() - began


def environments() -> Iterator[tuple[int, dict[str, str]]]:
    """Every process that may be read, with its environment."""
    for pid in pids():
        with suppress(OSError):
            pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            yield pid, dict(pair.partition("=")[::2] for pair in pairs if "=" in pair)


def shrunken(**dpo: Any) -> dict[str, Any]:
    """The embedded default in seconds, with gates that let anything through, and what a test wants of the training."""
    return SMALL | {"gates": OPEN_GATES, "dpo": SMALL["dpo"] | dpo}
