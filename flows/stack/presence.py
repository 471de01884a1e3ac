"""Whether a stack is up in this home, and where: one lock, one file of addresses, and what others may do with them."""

import atexit
import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from alignment.errors import StackError
from flows.stack.processes import answers, call, end_marked, send
from flows.stack.services import HEARTBEAT, POOL, STOPPED_WITHIN, WORKER, stack_file

logger = logging.getLogger("plumbline")

LOOK_EVERY = 0.1  # seconds
STARTS_WITHIN = 180.0  # seconds for the first answer of a stack's servers
PATIENCE = 2.0  # seconds, for somebody who only looks at the lock, or has it and is about to write its addresses
STARTING = "starting"  # the file that is there until a stack's servers have answered
JOINED = "joined"  # the folder with a locked file for each process that uses the stack
LAST_WORDS = 5.0  # seconds for a process whose servers are gone
RUNNING = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}


@dataclass(frozen=True)
class State:
    """What `stack.json` says of a running stack."""

    pid: int
    prefect: str
    mlflow: str
    receiver: str

    @property
    def health(self) -> dict[str, str]:
        """Each server's address that answers 200 while it serves."""
        return {
            "prefect": f"{self.prefect}/api/health",
            "mlflow": f"{self.mlflow}/health",
            "receiver": f"{self.receiver}/health",
        }


@contextmanager
def only_one(home: Path) -> Iterator[threading.Event]:
    """Hold the home's lock; yields an event that is set whenever somebody asks the stack to stop.

    Raises StackError where another `up` holds it.
    """
    lock = stack_file(home, "lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        if not _take(file, PATIENCE):
            state = running(home)
            where = f": Prefect {state.prefect}, MLflow {state.mlflow}" if state else ""
            raise StackError(f"up already in {home}{where}; `plumbline down` stops it")
        stack_file(home, "stack.json").unlink(missing_ok=True)
        stack_file(home, STARTING).unlink(missing_ok=True)
        stopping = threading.Event()
        before = {
            number: signal.signal(number, lambda *_: stopping.set())
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            yield stopping
        finally:
            stack_file(home, "stack.json").unlink(missing_ok=True)
            for number, handler in before.items():
                signal.signal(number, handler)


def running(home: Path) -> State | None:
    """The stack that is up in this home, or None; what a killed one left behind is not taken for one."""
    lock = stack_file(home, "lock")
    if not lock.exists():
        return None
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        with lock.open("a") as file:
            if _take(file):
                return None
        with suppress(FileNotFoundError):
            return State(**json.loads(stack_file(home, "stack.json").read_text(encoding="utf-8")))
        time.sleep(LOOK_EVERY)
    raise StackError(
        f"{stack_file(home, 'stack.json')} is missing though `plumbline up` runs there; stop that with Ctrl-C"
    )


def join(home: Path) -> None:
    """Let this process use the stack of this home, where one is up and the environment names no servers.

    One that is about to start is waited for.
    """
    if os.environ.get("PREFECT_API_URL") or os.environ.get("MLFLOW_TRACKING_URI"):
        return
    state = _once_up(home)
    if state is not None:
        os.environ["PREFECT_API_URL"] = f"{state.prefect}/api"
        os.environ["MLFLOW_TRACKING_URI"] = state.mlflow
        os.environ.setdefault("PLUMBLINE_WEBHOOK_URL", f"{state.receiver}/webhook")
        _sign_in(home)


def joined(home: Path) -> set[int]:
    """The processes of this host that joined the stack of this home and are still there."""
    found = set()
    for path in stack_file(home, JOINED).glob(f"{socket.gethostname()}@*"):
        with suppress(OSError), path.open("a") as file:  # another user's is not ours to tell
            if not _take(file):
                found.add(int(path.name.rpartition("@")[2]))
    return found


def dismiss(home: Path, within: float) -> int:
    """Have the processes that joined the stack end, if need be by force after `within` seconds; returns how many."""
    there = joined(home)
    for pid in there:
        send(pid, signal.SIGTERM)
    ends = time.monotonic() + within
    while joined(home) & there and time.monotonic() < ends:
        time.sleep(LOOK_EVERY)
    for pid in joined(home) & there:
        send(pid, signal.SIGKILL)
    return len(there)


def status(home: Path, console: Console) -> int:
    """Print what runs and how it fares; returns 0 where the whole stack is up, else 1."""
    state = running(home)
    if state is None:
        console.print(f"not up in {home}; `plumbline up` starts it", highlight=False, soft_wrap=True)
        return 1
    fares = {name: answers(url) for name, url in state.health.items()}
    beat = last_heartbeat(state.prefect) if fares["prefect"] else None
    runs = call("POST", f"{state.prefect}/api/flow_runs/count", RUNNING) if fares["prefect"] else "?"
    fares["worker"] = beat is not None and beat < 3 * HEARTBEAT
    said = "no heartbeat" if beat is None else f"last heartbeat {beat:.0f} s ago"
    notes = {"prefect": state.prefect, "mlflow": state.mlflow, "receiver": state.receiver}
    notes["worker"] = f"{said}, runs at work: {runs}"
    for name, note in notes.items():
        word = "[green]healthy  [/green]" if fares[name] else "[red]no answer[/red]"
        console.print(f"{name:<9} {word}  {note}", highlight=False, soft_wrap=True)
    return 0 if all(fares.values()) else 1


def down(home: Path, console: Console) -> int:
    """Stop the stack of this home, wherever it was started; returns 0, also where there was nothing to stop."""
    state = running(home)
    if state is None:
        left = end_marked(home) + dismiss(home, LAST_WORDS)
        console.print(f"not up{f'; ended {left} processes that it had left' if left else ''}", highlight=False)
        return 0
    send(state.pid, signal.SIGTERM)
    ends = time.monotonic() + sum(STOPPED_WITHIN.values()) + 10
    while running(home) is not None:
        if time.monotonic() > ends:
            send(state.pid, signal.SIGKILL)
        time.sleep(LOOK_EVERY)
    end_marked(home)
    dismiss(home, LAST_WORDS)
    console.print("stopped", highlight=False)
    return 0


def last_heartbeat(prefect: str) -> float | None:
    """Seconds since the stack's own worker was last heard of; None where it never was, or Prefect does not answer."""
    try:
        workers: list[dict[str, Any]] = call("POST", f"{prefect}/api/work_pools/{POOL}/workers/filter", {})
    except OSError:
        return None
    beats = [datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in workers if worker["name"] == WORKER]
    return max(0.0, (datetime.now(UTC) - max(beats)).total_seconds()) if beats else None


def _once_up(home: Path) -> State | None:
    """The stack of this home, once its servers have answered or have had their time; None where none is up."""
    ends = time.monotonic() + STARTS_WITHIN
    told = False
    while (state := running(home)) is not None and stack_file(home, STARTING).exists() and time.monotonic() < ends:
        if not told:
            logger.warning("`plumbline up` starts in this home; waiting for its servers")
            told = True
        time.sleep(LOOK_EVERY)
    return state


def _sign_in(home: Path) -> None:
    """Have the stack know of this process, so that its end is told to it; in somebody else's home it is not.

    A file stands for the process, and is open, and so locked, for as long as that lives.
    """
    path = stack_file(home, JOINED) / f"{socket.gethostname()}@{os.getpid()}"
    with suppress(PermissionError):
        path.parent.mkdir(exist_ok=True)
        file = path.open("a")
        _take(file, PATIENCE)
        atexit.register(_sign_out, file, path)


def _sign_out(file: IO[str], path: Path) -> None:
    path.unlink(missing_ok=True)
    file.close()


def _take(file: IO[str], patience: float = 0.0) -> bool:
    """Lock the file, for as long as it stays open; False where another process has had it all the while."""
    ends = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends:
                return False
            time.sleep(LOOK_EVERY)
        else:
            return True
