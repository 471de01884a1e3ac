"""The console that commands print to: its width, colours that any background shows, words that stay whole."""

import logging
import os
import re
import shutil
import warnings
from collections.abc import Collection, Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 110  # columns where the output is no terminal and COLUMNS is not set
NARROW = 20  # columns of text beside what stands before it, below which the text begins on a line of its own
GOOD, BAD, NOTE = "green", "red", "magenta"  # yellow and cyan fade on white, blue on black


def make_console(*, stderr: bool = False) -> Console:
    """A console of the terminal's width; without a terminal of COLUMNS, or wide enough for the tables."""
    console = Console(emoji=False, highlight=False, stderr=stderr)
    if is_live(console):
        return console
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    return Console(width=width, emoji=False, highlight=False, stderr=stderr)


def is_live(console: Console) -> bool:
    """Whether a line can be written over: a terminal that is not `TERM=dumb`."""
    return console.is_terminal and not console.is_dumb_terminal


def say(console: Console, text: str, *, head: str = "", fold: bool = False) -> None:
    """Print text, both with markup, after `head`; further lines begin below the first one's beginning.

    Lines end between words. A word that is wider than the console, such as a path that is there to be copied, runs
    over, or with `fold` is broken. Where `head` leaves too few columns, the text begins below it.
    """
    start = Text.from_markup(head, emoji=False)
    whole = Text.from_markup(text, emoji=False)
    if start.cell_len and console.width - start.cell_len < NARROW:
        if start.plain.strip():
            say(console, head)
        start = Text("  ")
        if not whole:
            return
    room = max(console.width - start.cell_len, 1)
    lines = whole.wrap(console, room, overflow="fold") if fold else between_words(whole, room)
    for number, line in enumerate(lines):
        line.rstrip()
        console.print(Text.assemble(start if number == 0 else " " * start.cell_len, line), soft_wrap=True)


def between_words(text: Text, width: int) -> Iterator[Text]:
    """The text in lines of at most `width` columns, if no word is longer."""
    for line in text.split("\n", allow_blank=True):
        ends, used = [], 0
        for word in re.finditer(r"\s*\S+\s*", line.plain):
            if used and used + cell_len(word.group().rstrip()) > width:
                ends.append(word.start())
                used = 0
            used += cell_len(word.group())
        yield from line.divide(ends)


def quieten(debug: bool = False) -> None:
    """Keep the libraries' messages out of the terminal, unless to debug; Prefect's UI and MLflow still get theirs."""
    if debug:
        return
    warnings.simplefilter("ignore")
    quieten_libraries()


def quieten_libraries() -> None:
    """Keep the libraries' logs off the console, but no warning of Python's; call it before they are imported."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    logging.getLogger("great_expectations").setLevel(logging.ERROR)


def plain_table(title: str, *headings: str, words: Collection[str]) -> Table:
    """An empty table without lines; columns of `words` stand on the left, numbers on the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(
            heading, justify="left" if heading in words else "right", no_wrap=heading != "", header_style="bold"
        )
    return table
