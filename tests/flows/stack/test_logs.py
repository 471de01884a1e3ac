"""A log is read by whole lines, and of them people see what matters."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.stack.logs import FORMATS, Log, Said, Teller, tidy
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


RUN = "12:00:01.123 | 71 | {} | Flow run 'hinge, beta 0.5' - {}"
TASK = "12:00:01.123 | 71 | {} | Flow run 'hinge, beta 0.5', task 'base model-f30' - {}"
MINE = "hinge, beta 0.5"


@pytest.mark.parametrize(
    ("source", "line", "shown"),
    [
        ("worker", RUN.format("INFO   ", "texts computed"), (MINE, "INFO", "texts computed")),
        ("worker", TASK.format("ERROR  ", "no space"), (MINE, "ERROR", "no space")),
        (
            "worker",
            """12:00:01.123 | 71 | INFO    | Flow run "Ada's" - texts computed""",
            ("Ada's", "INFO", "texts computed"),
        ),
        ("worker", RUN.format("INFO   ", "Executing flow 'align' for flow run 'x'..."), None),
        ("worker", RUN.format("INFO   ", "Finished in state Completed()"), None),
        ("worker", RUN.format("DEBUG  ", "anything"), None),
        ("worker", "Traceback (most recent call last):", None),
        ("prefect", "12:00:01.123 | INFO    | prefect.server - anything", None),
        (
            "prefect",
            "16:17:46.361 | ERROR   | prefect.server.events.services.event_persister - "
            "Max flush retries (5) reached, dropping 43 events",
            ("prefect", "ERROR", "Max flush retries (5) reached, dropping 43 events"),
        ),
        (
            "prefect",
            "12:00:01.123 | ERROR   | prefect.server - database is locked",
            ("prefect", "ERROR", "database is locked"),
        ),
        (
            "prefect",
            "12:00:01.123 | ERROR   | prefect.server.utilities.messaging.memory - Failed in consume_loop",
            None,
        ),
        (
            "prefect",
            "16:19:14.617 | ERROR   | prefect.server.utilities.worker_channel - "
            "Worker channel heartbeat persistence failed: work_pool=local worker_name=local",
            (
                "prefect",
                "WARNING",
                "the database was busy, and the worker's sign of life was not kept; the worker sends another",
            ),
        ),
        (
            "prefect",
            "16:19:03.204 | WARNING | prefect.server.events.actions - "
            "Action failed: 'Failed to set state: Run is already in terminal state COMPLETED.'",
            None,
        ),
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


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "Finished in state Failed('Flow run encountered an exception: ModelError: base.model a: no such folder')",
            "Failed: base.model a: no such folder",
        ),
        (
            "Finished in state Failed('Task run encountered an exception ModelError: no such model')",
            "Failed: no such model",
        ),
        (
            """Finished in state Crashed("Execution was aborted by a termination signal.")""",
            "Crashed: Execution was aborted by a termination signal.",
        ),
        ("Finished in state Skipped('too few prompts are left')", "Skipped: too few prompts are left"),
        ("Finished in state Failed('two\\nlines')", "Failed: two lines"),
    ],
)
def test_a_run_s_last_line_is_its_state_and_the_reason(message: str, shown: str) -> None:
    said = tidy("worker", RUN.format("INFO   ", message))
    assert said is not None
    assert said.message == shown
    assert (said.level == "ERROR") == (shown.startswith(("Failed", "Crashed")))


def told(lines: list[str], source: str = "worker", teller: Teller | None = None, now: float = 0.0) -> list[Said]:
    """What is shown of these lines, and of the time after them."""
    teller = teller or Teller()
    return [said for line in lines for said in teller.hear(source, line, now)] + list(teller.catch_up(now + 3))


FAILED_ROLLBACK = [  # as Prefect 3.8 logs it, shortened
    "16:44:10.740 | 9 | INFO    | Flow run 'ultra-bustard' - Beginning flow run 'roll back' for flow 'rollback'",
    "16:44:14.369 | 9 | ERROR   | Flow run 'roll back', task 'alias-d4e' - Finished in state Failed("
    "'Task run encountered an exception ModelError: models:/m: no such model; name a registered one')",
    "16:44:14.947 | 9 | ERROR   | Flow run 'roll back' - Encountered exception during execution: ModelError('models')",
    "Traceback (most recent call last):",
    "16:44:15.020 | 9 | INFO    | Flow run 'roll back' - Finished in state Failed("
    "'Flow run encountered an exception: ModelError: models:/m: no such model; name a registered one')",
    "16:44:15.021 | 9 | ERROR   | Flow run 'ultra-bustard' - Engine execution exited with unexpected exception",
    "Traceback (most recent call last):",
    '  File "engine.py", line 50, in <module>',
    "alignment.errors.ModelError: models:/m: no such model; name a registered one",
]


def test_a_failure_is_told_once_under_the_run_s_present_name() -> None:
    assert told(FAILED_ROLLBACK) == [("roll back", "ERROR", "Failed: models:/m: no such model; name a registered one")]


def test_a_run_that_ends_before_it_begins_is_told_with_the_last_line_of_its_traceback() -> None:
    lines = [
        "12:00:01.123 | 7 | INFO    | Flow run 'ultra-bustard' - Running 1 deployment pull step(s)",
        *FAILED_ROLLBACK[5:6],
        "Traceback (most recent call last):",
        "KeyError: 'first'",
        "The above exception was the direct cause of the following exception:",
        "ModuleNotFoundError: No module named 'mine'",
    ]
    assert told(lines) == [("ultra-bustard", "ERROR", "Failed: No module named 'mine'")]


def test_a_run_that_was_killed_is_told_by_its_name() -> None:
    """Only the worker can report it, and it knows no name."""
    where = "http://127.0.0.1:4200/runs/flow-run/d2f34690-3d64-4d8c-972a-f9c4e03774d8"
    report = (
        "12:01:01.123 | 3 | INFO    | prefect.runner.state_proposer - Reported flow run "
        "'d2f34690-3d64-4d8c-972a-f9c4e03774d8' as crashed: Process exited with status code: -9. Process exited due to "
        "a SIGKILL signal."
    )
    assert told([RUN.format("INFO   ", f"View at {where}"), report]) == [
        (MINE, "ERROR", "Crashed: Process exited due to a SIGKILL signal.")
    ]


def test_what_a_library_logs_in_a_run_is_told_as_the_run_s() -> None:
    lines = [
        RUN.format("INFO   ", "Executing 'x'"),
        "12:00:01.123 | 71 | WARNING | alignment.training.dpo - step 8: nearly every pair is ranked right",
        "12:00:01.123 | 72 | WARNING | alignment.training.dpo - elsewhere",
    ]
    assert [said[0] for said in told(lines)] == [MINE, "worker"]


def test_a_warning_that_repeats_is_counted_each_minute() -> None:
    line = "12:00:01.123 | WARNING | prefect.server.api - slow: {} s"
    teller = Teller()
    assert [said.message for said in told([line.format(1)], "prefect", teller)] == ["slow: 1 s"]
    assert told([line.format(number) for number in range(2, 14)], "prefect", teller, 10) == []
    assert [said.message for said in teller.catch_up(61)] == [
        "… 12 more times in the last minute, the last: slow: 13 s"
    ]
    assert told([line.format(14)], "prefect", teller, 62) == []
    assert [said.message for said in teller.catch_up(122)] == ["… once more in the last minute: slow: 14 s"]
    assert list(teller.catch_up(183)) == []
    assert [said.message for said in told([line.format(15)], "prefect", teller, 184)] == ["slow: 15 s"]


def test_what_runs_say_in_the_ordinary_way_is_never_counted() -> None:
    line = RUN.format("INFO   ", "step 10")
    assert len(told([line] * 3)) == 3


def test_prefect_s_records_carry_what_is_looked_for() -> None:
    """A worker gets these formats; a flow run's own record and a task's are read back from them."""
    import logging

    from prefect.logging.formatters import PrefectFormatter

    standard, flow, task = (FORMATS[name] for name in sorted(FORMATS, key=lambda name: ("RUN" in name, name)))
    formatter = PrefectFormatter(standard, datefmt="%H:%M:%S", flow_run_fmt=flow, task_run_fmt=task)
    record = logging.LogRecord("prefect.task_runs", logging.WARNING, "", 0, "slow", None, None)
    record.__dict__ |= {"flow_run_name": "mine", "task_run_name": "texts-0", "flow_run_id": "1", "task_run_id": "2"}
    assert tidy("worker", formatter.format(record)) == ("mine", "WARNING", "slow")


@pytest.mark.parametrize("level", ["ERROR", "WARNING"])
def test_words_of_prefects_bookkeeping_hide_no_trouble(level: str) -> None:
    line = f"12:00:01.123 | {level:<7} | Flow run 'films' - Executing the training failed: out of memory"
    said = tidy("worker", line)
    assert said is not None
    assert said.message == "Executing the training failed: out of memory"
