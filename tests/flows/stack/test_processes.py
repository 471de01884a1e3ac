"""Child processes: a free port, the mark by which all of them are found, and none outlives its parent."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alignment.stages.marks import is_alive
from flows.stack.processes import MARK, end_marked, free_port, marked, start

PROJECT = Path(__file__).parents[3]
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc and its signals are Linux's")


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
