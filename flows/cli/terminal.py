"""What a run looks like in a terminal: one line per stage, a bar for the one at work, and the result."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from alignment.judging.card import CONTROL_SIGNS, result_rows
from alignment.judging.report import SampleRow
from flows.align import AlignResult
from tasks import running
from tasks.running import WAITING, Event

SAMPLES = 3  # prompts whose texts are shown
MAX_TEXT = 280  # characters of each
LOGGERS = ("alignment", "plumbline")  # the library's, and that of the tasks


class StageLines(logging.Handler):
    """Prints each finished stage, shows the working one as a bar, and passes the library's warnings on between them."""

    def __init__(self, console: Console) -> None:
        """Print to `console`."""
        super().__init__(logging.WARNING)
        self.console = console
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.bar: TaskID | None = None

    def hear(self, event: Event) -> None:
        """Show one event of a stage."""
        if event.kind == "heading":
            self.console.print(f"\n[bold]{escape(event.stage)}[/bold]", highlight=False, soft_wrap=True)
        elif event.kind == "waiting":
            self.console.print(f"          [yellow]{event.stage} {WAITING}[/yellow]", highlight=False, soft_wrap=True)
        elif event.kind == "started":
            self.bar = self.bars.add_task(event.stage, total=None)
        elif event.kind == "progress" and self.bar is not None:
            self.bars.update(self.bar, completed=event.done, total=event.total)
        elif event.ref is not None:
            if self.bar is not None:
                self.bars.remove_task(self.bar)
                self.bar = None
            found = event.ref.counts.items()
            counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found if count)
            mark = "[dim]cached[/dim]" if event.kind == "cached" else f"{event.ref.seconds:5.1f}s"
            line = f"  {mark:>6}  {event.stage:<20} [dim]{counts}[/dim]"
            self.console.print(line, highlight=False, soft_wrap=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning of the library."""
        self.console.print(f"          [yellow]{escape(record.getMessage())}[/yellow]", highlight=False, soft_wrap=True)


@contextmanager
def stage_lines(console: Console) -> Iterator[None]:
    """Listen to the stages of a run while it lasts."""
    lines = StageLines(console)
    running.LISTENERS.append(lines.hear)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(lines)
    try:
        with lines.bars:
            yield
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(lines)
        running.LISTENERS.remove(lines.hear)


def result_table(result: AlignResult) -> Table:
    """The evaluation: each figure before, after, and the change."""
    table = Table(title=f"{result.report.prompts} held-out prompts", title_justify="left", title_style="bold")
    for heading in ("", "base", "aligned", "change"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in result_rows(result.report):
        table.add_row(*row)
    return table


def samples_table(rows: Sequence[SampleRow], limit: int = SAMPLES) -> Table:
    """The first held-out prompts, with what base and aligned model made of each, side by side."""
    table = Table(title="Held-out prompts, not chosen by hand", title_justify="left", title_style="bold", expand=True)
    table.show_lines = True
    for heading in ("prompt", "base", "aligned"):
        table.add_column(heading, ratio=3 if heading == "prompt" else 5, overflow="fold")
    for row in rows[:limit]:
        prompt, *texts = row.shown
        answers = [" ".join(text.removeprefix("" if row.messages else prompt).split()) for text in texts]
        table.add_row(*(escape(_cut(text.translate(CONTROL_SIGNS))) for text in (" ".join(prompt.split()), *answers)))
    return table


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def points_table(points: Sequence[Mapping[str, str]]) -> Table:
    """A sweep: one row per point."""
    table = Table(title=f"{len(points)} points", title_justify="left", title_style="bold")
    shown = [name for name in points[0] if name != "why"]
    for name in shown:
        table.add_column(name, justify="left" if name in {"loss", "verdict"} else "right")
    for point in points:
        colour = "green" if point["verdict"] == "passed" else "red"
        table.add_row(*(f"[{colour}]{point[name]}[/]" if name == "verdict" else point[name] for name in shown))
    return table


def gates_table(result: AlignResult) -> Table:
    """Each gate with its value, bound and verdict."""
    table = Table(title="Gates", title_justify="left", title_style="bold")
    for heading in ("gate", "value", "bound", ""):
        table.add_column(heading, justify="left" if heading == "gate" else "right")
    for gate in result.judgement.gates:
        verdict = "[green]passed[/green]" if gate.passed else "[red]refused[/red]"
        table.add_row(gate.name, f"{gate.value:.3f}", gate.bound, verdict)
    for name, why in result.judgement.not_applied.items():
        table.add_row(name, "–", "–", f"[dim]not applied: {why}[/dim]")
    return table
