"""The console of a command: its width, lines that end between words, and colours that any background shows."""

import io
import re

import pytest
from rich.console import Console

from flows.cli.console import WIDTH, between_words, make_console, say
from tests.flows.cli.screen import WIDTHS, require_words, screen

LONG = "the policy went further from the base than its reward model can be trusted, " * 4
PATH = "sqlite:////a/home/" + "folder/" * 20 + "mlflow.db"


@pytest.mark.parametrize(("columns", "width"), [("64", 64), ("200", 200), ("", WIDTH)])
def test_without_a_terminal_columns_decides_the_width(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.__stdout__", io.StringIO())  # the tests' own terminal, where there is one
    assert make_console().width == width


@WIDTHS
def test_lines_end_between_words_and_stand_below_each_other(width: int) -> None:
    text = screen(lambda console: say(console, LONG, head="Refused     "), width)
    require_words(text, LONG)
    first, *others = text.splitlines()
    assert first.startswith("Refused     the policy")
    assert others
    assert all(re.match(r" {12}\S", line) for line in others)


def test_a_word_that_is_wider_than_the_console_runs_over_since_it_is_there_to_be_copied() -> None:
    console = Console(width=40, file=io.StringIO())
    say(console, f"see {PATH} there", head="Look at it  ")
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines() == ["Look at it  see", f"            {PATH}", "            there"]


def test_where_little_room_is_left_the_text_begins_on_a_line_of_its_own() -> None:
    console = Console(width=24, file=io.StringIO())
    say(console, "the policy went further", head="Refused  ")
    say(console, "than its reward model", head=" " * 10)
    say(console, "", head="Refused  ")
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines() == ["Refused", "  the policy went", "  further", "  than its reward model", "Refused"]


def test_where_it_is_asked_for_a_long_word_is_folded() -> None:
    assert "".join(screen(lambda console: say(console, "日本" * 60, fold=True), 80).split()) == "日本" * 60


def test_wide_signs_count_as_two_columns() -> None:
    from rich.text import Text

    assert [line.plain for line in between_words(Text("日本 日本 日本"), 9)] == ["日本 日本 ", "日本"]
