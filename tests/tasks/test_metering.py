"""What stages did is added up in the home, over runs and processes, and no run fails by it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.errors import Interrupted, TrackingError
from alignment.stages.store import StageRef
from tasks.home import home
from tasks.metering import count, counted, failures_counted, note
from tasks.progress import Event


def ref(seconds: float) -> StageRef:
    return StageRef(stage="samples", key="k", path=Path("x"), digest="d", counts={}, seconds=seconds)


def test_stages_that_were_computed_and_found_add_up_and_parts_are_not_counted_twice() -> None:
    assert counted() == {}
    note(Event("samples 0-16", "computed", ref=ref(2.0)))
    note(Event("samples", "computed", ref=ref(2.5)))
    note(Event("samples", "computed", ref=ref(1.5)))
    note(Event("base", "cached", ref=ref(9.0)))
    note(Event("samples", "progress", 1, 2))
    assert counted() == {"computed": {"samples": 2}, "seconds": {"samples": 4.0}, "found": {"base": 1}}


def test_a_wait_is_counted_once_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 107.5])
    monkeypatch.setattr("tasks.metering.time.monotonic", lambda: next(clock))
    note(Event("policy", "waiting", who="another run"))
    note(Event("policy", "started"))
    note(Event("policy", "started"))
    assert counted() == {"waits": {"policy": 1}, "wait_seconds": {"policy": 7.5}}


def test_an_error_is_counted_and_passed_on_and_a_stop_is_no_failure() -> None:
    with pytest.raises(TrackingError), failures_counted("base"):
        raise TrackingError("no")
    with pytest.raises(Interrupted), failures_counted("base"):
        raise Interrupted("stop")
    assert counted() == {"failed": {"base": 1}}


def test_processes_that_count_at_once_lose_nothing() -> None:
    code = "from tasks.metering import count\nfor _ in range(10): count('pairs', computed=1)"
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert counted() == {"computed": {"pairs": 30}}


def test_a_home_that_cannot_be_written_stops_no_run() -> None:
    (home() / "stack").parent.mkdir(parents=True, exist_ok=True)
    (home() / "stack").write_text("a file where a folder belongs")
    count("base", computed=1)
    assert counted() == {}


def test_a_file_that_is_cut_off_is_begun_anew() -> None:
    count("base", computed=1)
    (home() / "stack" / "stages.json").write_text('{"computed": {"ba')
    count("base", computed=1)
    assert json.loads((home() / "stack" / "stages.json").read_text()) == {"computed": {"base": 1}}
