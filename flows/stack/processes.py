"""Child processes that serve on loopback: finding a port, starting, waiting for an answer, and ending all of them."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from alignment.errors import StackError

LOOPBACK = "127.0.0.1"
PR_SET_PDEATHSIG = 1
MARK = "PLUMBLINE_STACK"  # in the environment of every process of a stack: the home that it belongs to

_libc = ctypes.CDLL(None)  # before any fork: a child of a process with threads should take no lock
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach our loopback


def free_port(wanted: int = 0) -> int:
    """`wanted` if it is free on loopback, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as listener, suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LOOPBACK, port))
            return int(listener.getsockname()[1])
    raise StackError("no free port on 127.0.0.1; stop a program that holds one")


def start(
    command: Sequence[str], env: Mapping[str, str], log: Path, folder: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own, so that Ctrl-C reaches only us; its output is appended to `log`.

    It works in `folder`, or where we do. On Linux it gets SIGTERM when the thread that started it ends, by `kill -9`
    too.
    """
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            cwd=folder,
            env={**env, "PYTHONIOENCODING": "utf-8"},  # as the log is read
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def stop(process: "subprocess.Popen[bytes]", within: float) -> None:
    """Send SIGTERM, and SIGKILL if the process has not ended after `within` seconds."""
    process.terminate()
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answers(url: str, timeout: float = 2.0) -> bool:
    """Whether a GET of `url` on loopback gives status 200."""
    try:
        with _direct.open(url, timeout=timeout) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def call(method: str, url: str, body: Any, timeout: float = 5.0) -> Any:
    """Send JSON to a server on loopback and return its JSON. Raises OSError if it does not answer, or refuses."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310
    try:
        with _direct.open(request, timeout=timeout) as answer:
            return json.loads(answer.read() or "null")
    except (HTTPException, ValueError) as error:  # it ended in the middle of its answer
        raise OSError(f"{url}: no whole answer ({error!r})") from error


def wait_for_answer(
    process: "subprocess.Popen[bytes]",
    name: str,
    url: str,
    log: Path,
    within: float,
    given_up: Callable[[], bool] = lambda: False,
) -> None:
    """Return once `url` answers, or `given_up` returns True.

    Raises StackError if the process ends first, or does not answer within `within` seconds.
    """
    ends = time.monotonic() + within
    while not (given_up() or answers(url)):
        if process.poll() is not None:
            raise StackError(f"{name} ended with code {process.returncode} at its start; see {log}")
        if time.monotonic() > ends:
            raise StackError(f"{name} did not answer within {within:.0f} s; see {log}")
        time.sleep(0.1)


def marked(home: Path, variable: str = "") -> list[int]:
    """The ids of all processes with this home's mark in their environment, and with `variable` in it where given.

    They are found on Linux only; elsewhere the list is empty.
    """
    mark, has = f"{MARK}={home}".encode(), f"{variable}=".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile, or is somebody else's
            items = (folder / "environ").read_bytes().split(b"\0")
            if mark in items and (not variable or any(item.startswith(has) for item in items)):
                found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def end_marked(home: Path, within: float = 10.0) -> int:
    """Kill all processes with this home's mark; returns how many there were.

    Raises StackError if one is still there after `within` seconds, as one that hangs in the kernel is.
    """
    first = left = marked(home)
    ends = time.monotonic() + within
    while left:
        if time.monotonic() > ends:
            raise StackError(f"processes {left} of {home} cannot be killed; find out what they wait for")
        for pid in left:
            send(pid, signal.SIGKILL)
        time.sleep(0.05)
        left = marked(home)
    return len(first)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal, unless the process has ended or belongs to another user."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _die_with_parent() -> None:
    """Called in the child on Linux, so that a parent that is killed with -9 leaves no server behind."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
