"""The commands that tell of a run to people who were not there: report, why."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.console import BAD, GOOD, NOTE, make_console, quieten, say

if TYPE_CHECKING:
    from tasks.registry.reasons import Told

SUBJECT = (
    "a run's id or how it begins, a registered name (its champion, else its challenger), name@alias, or models:/name/3"
)
Subject = Annotated[str, Parameter(help=f"{SUBJECT[0].upper()}{SUBJECT[1:]}")]
Out = Annotated[Path | None, Parameter(help="File to write [named after what it shows]", show_default=False)]
Debug = Annotated[bool, Parameter(help="Show the traceback of an error", negative=(), show_default=False)]


def report(subject: Subject, /, *, out: Out = None, debug: Debug = False) -> int:
    """Write a run as one HTML page that needs no network: figures, gates, curves, pairs, samples, lineage, settings.

    A registered version is shown by the run that made it.
    """
    quieten(debug)
    from flows.library import report as write_report

    return written(write_report(subject, out), make_console())


def why(
    subject: Annotated[str, Parameter(help="A registered name, name@alias, models:/name/3, or a run's id")],
    version: Annotated[int | None, Parameter(help="Number of the version [the newest]", show_default=False)] = None,
    /,
    *,
    json: Annotated[bool, Parameter(help="Print a JSON object", negative=(), show_default=False)] = False,
    debug: Debug = False,
) -> int:
    """Show why a version or a run was approved or refused: its gates, and who decided what on it and when."""
    quieten(debug)
    from flows.library import registry

    with registry():
        from tasks.registry.reasons import tell

        told = tell(subject, version)
    if json:
        sys.stdout.write(f"{told.model_dump_json(indent=2)}\n")
        return 0
    show(told, make_console())
    return 0


def show(told: "Told", console: Console) -> None:
    """Print what is told of a version or a run."""
    colour = {"passed": GOOD, "refused": BAD}.get(told.verdict, NOTE)
    say(console, f"[bold]{escape(told.title)}[/]: [bold {colour}]{told.verdict}[/]")
    refused = sum(not gate.passed for gate in told.gates)
    if refused:
        say(console, f"{refused} of {len(told.gates)} gates refused it.")
    elif told.sentence:
        say(console, escape(told.sentence))
    if told.against:
        console.print()
        say(console, f"[{BAD}]{escape(told.against)}[/]", head="Not to be promoted: ")
    if told.gates:
        console.print()
        console.print(gates_table(told))
    if told.history:
        console.print()
        console.print("[bold]History[/]")
        for entry in told.history:
            say(console, escape(entry.what), head=f"{entry.day:<18}")
    console.print()
    for heading, text in told.next.items():
        say(console, escape(text), head=f"{heading:<12}")


def gates_table(told: "Told") -> Table:
    """Each gate with its value, bound and verdict, and of a refused one what that means."""
    table = Table(box=None, pad_edge=False)
    for heading in ("gate", "value", "must be", "verdict"):
        table.add_column(heading, header_style="dim", justify="right" if heading == "value" else "left", no_wrap=True)
    table.add_column("", overflow="fold")
    for gate in told.gates:
        verdict = f"[{GOOD}]passed[/]" if gate.passed else f"[bold {BAD}]refused[/]"
        why = "" if gate.passed else escape(gate.why)
        table.add_row(gate.name, f"{gate.value:.4g}", escape(gate.bound), verdict, why)
    for name, why in told.not_applied.items():
        table.add_row(name, "–", "–", "[dim]not applied[/]", escape(why))
    return table


def written(path: Path, console: Console) -> int:
    """Say which page was written."""
    size = path.stat().st_size
    console.print(f"{path}: {size / 1e6:.2f} MB, opens in a browser without a network", soft_wrap=True, markup=False)
    return 0
