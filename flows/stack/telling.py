"""What `plumbline up` prints: the steps of its start with their seconds, and each later event with its time."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flows.cli.console import BAD, NOTE
from flows.stack.activity import Row
from flows.stack.logs import Said, Teller

COLOURS = {"WARNING": NOTE, "ERROR": BAD, "CRITICAL": BAD}
CLOCK = "%H:%M:%S"
WHO = 8  # columns of the name before a message; a longer one, as a run has, gets a line of its own
SELF = "up"


class Screen:
    """A terminal, or the file in its place, to which a stack prints."""

    def __init__(self, console: Console) -> None:
        """Print to this console."""
        self.console = console
        self._teller = Teller()
        self._last = ""

    def own(self, message: str, level: str = "INFO") -> None:
        """Print a line of the stack itself, with the time."""
        self.tell(Said(SELF, level, message))

    def hear(self, source: str, lines: Iterable[str]) -> None:
        """Print what people are to see of a log's new lines."""
        now = time.monotonic()
        for line in lines:
            for said in self._teller.hear(source, line, now):
                self.tell(said)
        for said in self._teller.catch_up(now):
            self.tell(said)

    def tell(self, said: Said) -> None:
        """Print a line with the time: whole into a file; on a terminal by words, and the name where it is another."""
        if not self.console.is_terminal:
            self.plain(f"{time.strftime(CLOCK)} {said.who:<{WHO}} {said.message}")
            return
        who, self._last = "" if said.who == self._last else said.who, said.who
        if len(who) > WHO:
            self._line(Text(who, style="bold"))
            who = ""
        self._line(Text(who, style="bold"), Text(said.message, style=COLOURS.get(said.level, "")))

    def _line(self, *cells: Text) -> None:
        grid = Table.grid(padding=(0, 1))
        for width in (len("12:00:00"), WHO)[: len(cells)]:
            grid.add_column(width=width)
        grid.add_column(ratio=1)
        grid.add_row(Text(time.strftime(CLOCK), style="dim"), *cells)
        self.console.print(grid)

    def row(self, row: Row, style: str = "") -> None:
        """Print a heading and its text, and below them the page that goes with it."""
        self.plain(f"{row.heading:<11} {row.text}", style)
        if row.page:
            self.plain(f"  {row.page}")

    def plain(self, text: str = "", style: str = "") -> None:
        """Print a text as it is: an address stays in one piece."""
        self.console.print(Text(text, style=style), soft_wrap=True)


class Steps:
    """The steps of a start, of which several may be under way at once."""

    def __init__(self, screen: Screen, names: Sequence[str]) -> None:
        """Steps of these names, none of them begun."""
        self._screen = screen
        self._names = names
        self._done = 0
        self._began: dict[str, float] = {}
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """The time since the first step."""
        return time.monotonic() - self._start

    @contextmanager
    def shown(self) -> Iterator["Steps"]:
        """Show what is under way on a terminal's last line meanwhile; into a file only what is done is printed."""
        if not self._screen.console.is_terminal:
            yield self
            return
        spinner = Spinner("dots")

        def now() -> Spinner:
            spinner.update(text=Text(self.under_way(), no_wrap=True, overflow="ellipsis"))
            return spinner

        with Live(get_renderable=now, console=self._screen.console, transient=True, refresh_per_second=5):
            yield self

    def under_way(self) -> str:
        """What is done and what is not, in one line."""
        names = ", ".join(self._began) or "..."
        return f"{self._done} of {len(self._names)} done, now {names}: {self.seconds:.0f} s"

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step from its begin to its end; a failure is not its end."""
        self.begin(name)
        yield
        self.end(name)

    def begin(self, name: str) -> None:
        """Note that a step is under way."""
        self._began[name] = time.monotonic()

    def end(self, name: str) -> None:
        """Print that a step is done, and its seconds; one that was not announced had nothing to do."""
        seconds = time.monotonic() - self._began.pop(name)
        if name in self._names:
            self._done += 1
            self._screen.own(f"{self._done} of {len(self._names)}  {name:<18} {seconds:5.1f} s")
