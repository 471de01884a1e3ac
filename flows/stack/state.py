"""The lock that allows one stack per home, and the file with the addresses of the stack that is running."""

import fcntl
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from alignment.errors import StackError
from flows.stack.services import stack_file

LOOK_EVERY = 0.1  # seconds
LOCK_WITHIN = 2.0  # seconds; another process may hold the lock for a moment, to see whether a stack is running
STATE = "stack.json"
STARTING = "starting"  # the file that exists until a stack's servers have answered


@dataclass(frozen=True)
class State:
    """A running stack: the process of `plumbline up`, and the addresses of its servers."""

    pid: int
    prefect: str
    mlflow: str
    receiver: str

    @property
    def health(self) -> dict[str, str]:
        """For each server, the address that answers 200 while it serves."""
        return {
            "prefect": f"{self.prefect}/api/health",
            "mlflow": f"{self.mlflow}/health",
            "receiver": f"{self.receiver}/health",
        }


@contextmanager
def lock_home(home: Path) -> Iterator[threading.Event]:
    """Hold the home's lock; yields an event that SIGINT, SIGTERM and SIGHUP set: the stack is to stop.

    Raises StackError if another `plumbline up` holds the lock.
    """
    lock = stack_file(home, "lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        if not try_lock(file, LOCK_WITHIN):
            state = running(home)
            where = f": Prefect {state.prefect}, MLflow {state.mlflow}" if state else ""
            raise StackError(f"up already in {home}{where}; `plumbline down` stops it")
        stack_file(home, STATE).unlink(missing_ok=True)
        stack_file(home, STARTING).unlink(missing_ok=True)
        stopping = threading.Event()
        before = {
            number: signal.signal(number, lambda *_: stopping.set())
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            yield stopping
        finally:
            stack_file(home, STATE).unlink(missing_ok=True)
            for number, handler in before.items():
                signal.signal(number, handler)


def running(home: Path) -> State | None:
    """The stack that is running in this home, or None; files that a killed one left behind do not count."""
    lock = stack_file(home, "lock")
    if not lock.exists():
        return None
    ends = time.monotonic() + LOCK_WITHIN
    while time.monotonic() < ends:
        with lock.open("a") as file:
            if try_lock(file):
                return None
        with suppress(FileNotFoundError):
            return State(**json.loads(stack_file(home, STATE).read_text(encoding="utf-8")))
        time.sleep(LOOK_EVERY)
    raise StackError(f"{stack_file(home, STATE)} is missing though `plumbline up` runs there; stop that with Ctrl-C")


def try_lock(file: IO[str], within: float = 0.0) -> bool:
    """Lock the file for as long as it stays open; False if another process has held it for `within` seconds."""
    ends = time.monotonic() + within
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= ends:
                return False
            time.sleep(LOOK_EVERY)
        else:
            return True
