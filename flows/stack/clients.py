"""The commands that use a running stack: each registers itself with it, so that stopping the stack stops them too."""

import atexit
import logging
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from flows.stack.processes import send
from flows.stack.services import stack_file
from flows.stack.state import LOCK_WITHIN, LOOK_EVERY, STARTING, State, running, try_lock

logger = logging.getLogger("plumbline")

STARTS_WITHIN = 180.0  # seconds until the servers of a stack that is starting have answered
STOPS_WITHIN = 5.0  # seconds for a client whose servers are gone
CLIENTS = "joined"  # the folder with one locked file per client


def join(home: Path) -> None:
    """Use the servers of the stack in this home, if one is running and the environment names no servers.

    A stack that is just starting is waited for.
    """
    if os.environ.get("PREFECT_API_URL") or os.environ.get("MLFLOW_TRACKING_URI"):
        return
    state = _wait_until_started(home)
    if state is not None:
        os.environ["PREFECT_API_URL"] = f"{state.prefect}/api"
        os.environ["MLFLOW_TRACKING_URI"] = state.mlflow
        os.environ.setdefault("PLUMBLINE_WEBHOOK_URL", f"{state.receiver}/webhook")
        _register(home)


def clients(home: Path) -> set[int]:
    """The process ids of this host's clients of the stack in this home, those that still run."""
    found = set()
    for path in stack_file(home, CLIENTS).glob(f"{socket.gethostname()}@*"):
        with suppress(OSError), path.open("a") as file:  # another user's file cannot be opened
            if not try_lock(file):
                found.add(int(path.name.rpartition("@")[2]))
    return found


def stop_clients(home: Path, within: float) -> int:
    """Send SIGTERM to every client, and SIGKILL to those left after `within` seconds; returns how many there were."""
    found = clients(home)
    for pid in found:
        send(pid, signal.SIGTERM)
    ends = time.monotonic() + within
    while clients(home) & found and time.monotonic() < ends:
        time.sleep(LOOK_EVERY)
    for pid in clients(home) & found:
        send(pid, signal.SIGKILL)
    return len(found)


def _wait_until_started(home: Path) -> State | None:
    """The stack of this home, once its servers have answered or their time is up; None if none is running."""
    ends = time.monotonic() + STARTS_WITHIN
    warned = False
    while (state := running(home)) is not None and stack_file(home, STARTING).exists() and time.monotonic() < ends:
        if not warned:
            logger.warning("`plumbline up` starts in this home; waiting for its servers")
            warned = True
        time.sleep(LOOK_EVERY)
    return state


def _register(home: Path) -> None:
    """Keep a locked file open while this process lives: it marks the process as a client.

    In another user's home, where no file can be made, the process stays unregistered.
    """
    path = stack_file(home, CLIENTS) / f"{socket.gethostname()}@{os.getpid()}"
    with suppress(PermissionError):
        path.parent.mkdir(exist_ok=True)
        file = path.open("a")
        try_lock(file, LOCK_WITHIN)
        atexit.register(_unregister, file, path)


def _unregister(file: IO[str], path: Path) -> None:
    path.unlink(missing_ok=True)
    file.close()
