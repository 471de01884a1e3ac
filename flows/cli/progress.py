"""How far a run is, in a terminal: a line per finished stage, and below them one for the stage at work.

Where no line can be written over, as in a file, the stage at work has a line every 30 seconds.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from alignment.judging.formats import about
from flows.cli.console import NOTE, is_live, say
from tasks import running
from tasks.progress import Event
from tasks.sentences import counted
from tasks.slots import WAITING

LOGGERS = ("alignment", "plumbline")  # the library's, and that of the tasks
EVERY = 30.0  # seconds between two lines of a stage at work where there is no terminal
BAR = range(8, 31)  # columns of the bar, as the line has room
INDENT = " " * 10
STAGE = 17  # columns of a stage's name: those of the longest, which are the frontier's


@dataclass(frozen=True)
class AtWork:
    """A stage at work: its last event, and when it began, in seconds of a clock."""

    event: Event
    began: float


class StageLines(logging.Handler):
    """Prints each finished stage, shows the one at work, and passes the library's warnings on between them."""

    def __init__(self, console: Console) -> None:
        """Print to `console`."""
        super().__init__(logging.WARNING)
        self.console = console
        self.stages: dict[str, AtWork] = {}
        self.folds = False  # below a heading: the stages before were told below another one
        self.cached: list[Event] = []
        self.said = time.monotonic()
        self.live = Live(get_renderable=self._line, console=console, transient=True) if is_live(console) else None

    def hear(self, event: Event) -> None:
        """Show one event of a stage."""
        now = time.monotonic()
        if event.kind != "cached":
            self.flush()
        if event.kind == "heading":
            if self.folds:
                self.console.print()
            self.folds = True
            say(self.console, f"[bold]{escape(event.stage)}[/bold]")
        elif event.kind == "waiting":
            holder = f" ({event.who})" if event.who else ""
            say(self.console, f"[{NOTE}]{escape(f'{event.stage} {WAITING}{holder}')}[/]", head=INDENT)
        elif event.kind == "started":
            self.stages[event.stage] = AtWork(event, now)
        elif event.kind == "progress" and event.stage in self.stages:
            self.stages[event.stage] = replace(self.stages.pop(event.stage), event=event)  # the last one is shown
            if self.live is None and now - self.said >= EVERY:
                self.said = now
                say(self.console, status(self.stages[event.stage], now, self.console.width - len(INDENT)), head=INDENT)
        elif event.ref is not None:
            self.stages.pop(event.stage, None)
            self.said = now
            if event.kind == "cached" and self.folds:
                self.cached.append(event)
            else:
                self._finished(event)

    def flush(self) -> None:
        """Print what was found in the store since the last line: several stages in one line."""
        found, self.cached = self.cached, []
        if len(found) == 1:
            self._finished(found[0])
        elif found:
            place = f"{found[0].number}-{found[-1].number}/{found[0].of}" if found[0].number else ""
            stages = ", ".join(event.stage for event in found)
            say(self.console, escape(stages), head=f"{place:>7} [dim]cached[/dim]  ")

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning of the library."""
        self.flush()
        say(self.console, f"[{NOTE}]{escape(record.getMessage())}[/]", head=INDENT)

    def _finished(self, event: Event) -> None:
        assert event.ref is not None
        place = f"{event.number:>2}/{event.of}" if event.number else ""
        mark = "[dim]cached[/dim]" if event.kind == "cached" else f"{event.ref.seconds:5.1f}s"
        say(
            self.console,
            escape(counted(event.ref.counts)),
            head=f"{place:>5} {mark:>6}  {escape(event.stage):<{STAGE}} ",
        )

    def _line(self) -> Text:
        """The stage that told something last."""
        if not self.stages:
            return Text()
        room = self.console.width - 1
        line = Text.from_markup(status(list(self.stages.values())[-1], time.monotonic(), room, bar=True))
        line.no_wrap = True
        return line


@contextmanager
def stage_lines(console: Console) -> Iterator[None]:
    """Listen to the stages of a run while it lasts."""
    lines = StageLines(console)
    running.LISTENERS.append(lines.hear)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(lines)
    try:
        if lines.live is None:
            yield
        else:
            with lines.live:
                yield
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(lines)
        running.LISTENERS.remove(lines.hear)
        lines.flush()


def status(at_work: AtWork, now: float, width: int, *, bar: bool = False) -> str:
    """One line about the stage at work, with markup; of what does not fit, the least telling is left out."""
    event = at_work.event
    row, rate = event.row or {}, event.rate
    left = "" if event.left is None else f"{about(event.left)} left"
    parts = {  # in the order of the line
        "place": f"stage {event.number} of {event.of}" if event.number else "",
        "stage": f"[bold]{escape(event.stage)}[/bold]",
        "bar": "",
        "done": f"{'step ' * bool(row)}{event.done:,}/{event.total:,}" if event.total else about(now - at_work.began),
        "loss": f"loss {row['loss']:.3g}" if "loss" in row else "",
        "rate": "" if rate is None else f"{rate:,.1f}/s" if rate < 10 else f"{rate:,.0f}/s",
        "left": left and f"{left} of the run",
    }
    wanted = BAR.start + 2 if bar and event.total else 0  # the bar says more than the last words
    for name, shorter in (("left", left), ("rate", ""), ("loss", ""), ("place", ""), ("left", "")):
        if _columns(parts) + wanted > width:
            parts[name] = shorter
        wanted = 0
    room = min(width - _columns(parts) - 2, BAR.stop - 1)
    if bar and event.total and room >= BAR.start:
        full = min(room, round(room * event.done / event.total))
        parts["bar"] = f"{'█' * full}[dim]{'░' * (room - full)}[/dim]"
    return "  ".join(part for part in parts.values() if part)


def _columns(parts: dict[str, str]) -> int:
    return Text.from_markup("  ".join(part for part in parts.values() if part)).cell_len
