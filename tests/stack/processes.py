"""Child processes on loopback: started, waited for, started again where they are to be kept up, and stopped."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from random import sample
from typing import Any

import pytest

from flows.stack.processes import free_port

READY_WITHIN = 300.0  # seconds; two cores that do other things need a minute
QUIET = range(20_000, 32_000)
"""Ports that Linux gives no outgoing connection, so that one found free is free still when its service starts."""
STOPPED_WITHIN = 20.0  # seconds
AGAIN_AFTER = 0.5  # seconds


@contextmanager
def process(
    command: list[str], env: Mapping[str, str], log: Path, *, stop: int = signal.SIGTERM, **options: Any
) -> Iterator["subprocess.Popen[bytes]"]:
    """A child process in a group of its own, stopped at the end, by force where it does not want to."""
    child = _start(command, env, log, **options)
    try:
        yield child
    finally:
        _stop(child, stop)


class Kept:
    """A process that is started again whenever it ends, once what is left of its group is gone as well."""

    def __init__(self, command: list[str], env: Mapping[str, str], log: Path) -> None:
        self._start = lambda: _start(command, env, log)
        self._over = threading.Event()
        self.child = self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        while not self._over.wait(AGAIN_AFTER):
            if self.child.poll() is not None:
                _end_group(self.child)
                self.child = self._start()

    def members(self) -> list[int]:
        """Its processes, itself included."""
        return [pid for pid in pids() if _group(pid) == self.child.pid]

    def stop(self) -> None:
        """Stop it for good."""
        self._over.set()
        self._keeper.join()
        _stop(self.child, signal.SIGTERM)


def quiet_ports(count: int, besides: Collection[int] = ()) -> list[int]:
    """Different ports of loopback that nobody uses, none of them in `besides`."""
    tried = (port for port in sample(QUIET, len(QUIET)) if port not in besides and free_port(port) == port)
    return list(islice(tried, count))


def pids() -> Iterator[int]:
    """Every process."""
    return (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))


def command_of(pid: int) -> list[str]:
    """The words of a process's command; none where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _start(command: list[str], env: Mapping[str, str], log: Path, **options: Any) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            command, env=dict(env), stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options
        )


def _stop(child: "subprocess.Popen[bytes]", number: int) -> None:
    child.send_signal(number)
    with suppress(subprocess.TimeoutExpired):
        child.wait(STOPPED_WITHIN)
    _end_group(child)


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def wait_until(ready: Callable[[], bool], what: str, child: Any = None, log: Path | None = None) -> None:
    """Return once `ready()` holds; fails after five minutes, or when the child has ended, with the end of its log."""
    ends = time.monotonic() + READY_WITHIN
    while time.monotonic() < ends and (child is None or child.poll() is None):
        if ready():
            return
        time.sleep(0.2)
    tail = log.read_text("utf-8", errors="replace")[-3_000:] if log else ""
    pytest.fail(f"{what} did not get ready; the end of its log:\n{tail}")
