"""A log is read by whole lines, and of them people see what matters."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.stack.logs import Log, tidy
from flows.stack.processes import MARK, end_marked
from flows.stack.services import Service

Begin = Callable[[list[str]], Service]


@pytest.fixture
def worker(home: Path) -> Iterator[Begin]:
    """A worker with the given command, not started yet."""
    made: list[Service] = []

    def make(command: list[str]) -> Service:
        made.append(Service("worker", command, os.environ | {MARK: str(home)}, Log(home / "worker.log")))
        return made[-1]

    yield make
    end_marked(home)
    for service in made:
        assert service.process is not None
        service.process.wait()


def test_a_log_is_read_by_whole_lines_and_begun_anew(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "worker.log").write_text("before\n", encoding="utf-8")
    log = Log(home / "worker.log")
    with log.path.open("a", encoding="utf-8", buffering=1) as file:
        file.write("one\ntw")
        assert list(log.lines()) == ["one"]
        file.write("o\n")
        assert list(log.lines()) == ["two"]
        monkeypatch.setattr("flows.stack.logs.MAX_BYTES", 10)
        file.write("a long line\n")
        assert list(log.lines()) == ["a long line"]
        file.write("after\n")
    assert list(log.lines()) == ["after"]
    assert (home / "worker.log.1").read_text(encoding="utf-8") == "one\ntwo\na long line\n"
    assert (home / "worker.log").read_text(encoding="utf-8") == "after\n"


@pytest.mark.parametrize(
    ("source", "line", "shown"),
    [
        (
            "worker",
            "12:00:01.123 | INFO    | Flow run 'align-quick' - texts computed",
            ("align-quick", "INFO", "texts computed"),
        ),
        (
            "worker",
            "12:00:01.123 | ERROR   | Task run 'base-0' - Task run failed: no space",
            ("base-0", "ERROR", "Task run failed: no space"),
        ),
        ("worker", "12:00:01.123 | INFO    | Flow run 'x' - Executing flow 'align' for flow run 'x'...", None),
        ("worker", "12:00:01.123 | DEBUG   | Flow run 'x' - anything", None),
        ("worker", "Traceback (most recent call last):", None),
        ("prefect", "12:00:01.123 | INFO    | prefect.server - anything", None),
        (
            "prefect",
            "12:00:01.123 | ERROR   | prefect.server - database is locked",
            ("prefect", "ERROR", "database is locked"),
        ),
        ("prefect", "12:00:01.123 | ERROR   | prefect.server.utilities.messaging - Failed in consume_loop", None),
        (
            "mlflow",
            "2026/11/23 12:00:01 WARNING mlflow.store: slow",
            ("mlflow", "WARNING", "2026/11/23 12:00:01 WARNING mlflow.store: slow"),
        ),
        (
            "receiver",
            "2026-11-23 12:00:01,123 champion of m is version 3",
            ("receiver", "INFO", "champion of m is version 3"),
        ),
        ("mlflow", "INFO:     127.0.0.1:5000 - GET /", None),
    ],
)
def test_people_see_what_runs_log_and_what_goes_wrong(
    source: str, line: str, shown: tuple[str, str, str] | None
) -> None:
    assert tidy(source, line) == shown
