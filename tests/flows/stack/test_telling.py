"""What a stack prints: at 80 columns no word is broken; into a file each line is whole, with the time and the name."""

import io
import re

import pytest
from rich.console import Console

from flows.stack.activity import Row
from flows.stack.logs import Said
from flows.stack.telling import Screen, Steps

NAME = "film-reviews: hinge, beta 0.5, lr 0.0003"
LONG = "base.model /nowhere/at-all: no such folder; give a folder that `save_pretrained` wrote, or the name of one"
CLOCK = re.compile(r"\d\d:\d\d:\d\d")


def screen(*, terminal: bool) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=terminal, color_system=None, legacy_windows=False)
    return Screen(console), out


def test_into_a_file_a_line_is_whole_and_names_who_says_it() -> None:
    shown, out = screen(terminal=False)
    shown.tell(Said(NAME, "ERROR", LONG))
    shown.tell(Said("prefect", "WARNING", "[red]slow[/red]"))
    first, second = out.getvalue().splitlines()
    assert CLOCK.sub("", first).strip() == f"{NAME} {LONG}"
    assert CLOCK.sub("", second).strip() == "prefect  [red]slow[/red]"


def test_on_a_terminal_words_stay_whole_and_a_run_is_named_where_its_lines_begin() -> None:
    shown, out = screen(terminal=True)
    for said in (Said(NAME, "INFO", LONG), Said(NAME, "INFO", "more"), Said("prefect", "ERROR", "slow")):
        shown.tell(said)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    assert CLOCK.sub("", lines[0]).split() == NAME.split()
    assert " ".join(CLOCK.sub("", line).strip() for line in lines) == f"{NAME} {LONG} more prefect  slow"
    assert out.getvalue().count(NAME) == 1


def test_an_address_is_in_one_piece_at_any_width() -> None:
    shown, out = screen(terminal=True)
    page = "http://127.0.0.1:4200/runs/flow-run/" + "0" * 60
    shown.row(Row("approval", "promote film-reviews v3 waits for a person", page))
    assert page in out.getvalue().splitlines()[1]


def test_each_step_is_told_when_it_is_done_and_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 101.0, 102.0, 104.0, 108.5])
    monkeypatch.setattr("flows.stack.telling.time.monotonic", lambda: next(now))
    shown, out = screen(terminal=False)
    steps = Steps(shown, ["prefect", "mlflow"])
    with steps.shown():
        steps.begin("prefect")
        steps.begin("mlflow")
        steps.end("mlflow")
        steps.end("prefect")
    said = [CLOCK.sub("", line).split() for line in out.getvalue().splitlines()]
    assert said == [["up", "1", "of", "2", "mlflow", "2.0", "s"], ["up", "2", "of", "2", "prefect", "7.5", "s"]]


def test_a_step_that_was_not_announced_is_not_counted() -> None:
    shown, out = screen(terminal=False)
    steps = Steps(shown, ["prefect"])
    with steps.step("a database that is there"):
        pass
    assert out.getvalue() == ""


def test_a_terminal_s_last_line_says_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, out = screen(terminal=True)
    monkeypatch.setattr("flows.stack.telling.time.monotonic", lambda: 100.0)
    steps = Steps(shown, ["prefect", "mlflow", "worker"])
    with steps.shown():
        steps.begin("prefect")
        steps.begin("mlflow")
        assert steps.under_way() == "0 of 3 done, now prefect, mlflow: 0 s"
        steps.end("mlflow")
        assert steps.under_way() == "1 of 3 done, now prefect: 0 s"
    assert "1 of 3" in out.getvalue()


def test_a_step_that_fails_is_not_done() -> None:
    shown, out = screen(terminal=False)
    steps = Steps(shown, ["deployments"])
    with pytest.raises(ValueError, match="no"), steps.step("deployments"):
        raise ValueError("no")
    assert out.getvalue() == ""
