"""The command that reads what people said of a run's samples in MLflow: ratings."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.console import make_console, quieten, say
from flows.cli.report import Debug, Subject

if TYPE_CHECKING:
    from alignment.judging.ratings import Ratings


def ratings(
    subject: Subject,
    /,
    *,
    pairs: Annotated[
        Path | None,
        Parameter(help="Write the rated texts as preference pairs to this .jsonl or .parquet", show_default=False),
    ] = None,
    json: Annotated[bool, Parameter(help="Print a JSON object", negative=(), show_default=False)] = False,
    debug: Debug = False,
) -> int:
    """Show how people rated a run's samples in MLflow: how often they prefer the aligned model, and who agrees.

    The samples to rate are linked on the run's page in MLflow.
    """
    quieten(debug)
    from flows.library import ratings as read
    from flows.library import ratings_page

    found = read(subject, pairs)
    if json:
        sys.stdout.write(f"{found.model_dump_json(indent=2)}\n")
        return 0
    console = make_console()
    show(found, console)
    if not found.rated:
        say(console, escape(ratings_page(subject)), head="Rate them: ")
    elif pairs is not None:
        say(console, escape(f"{pairs}: {found.aligned + found.base:,} pairs"), head="Written: ")
    return 0


def show(found: "Ratings", console: Console) -> None:
    """Print the figures of what was rated."""
    if found.win_rate is None or found.win_rate_ci is None:
        say(console, f"None of {found.offered:,} samples is rated yet.")
        return
    people = "1 person" if len(found.raters) == 1 else f"{len(found.raters):,} people"
    say(console, f"{found.rated:,} of {found.offered:,} prompts rated by {people}: {escape(', '.join(found.raters))}")
    low, high = found.win_rate_ci
    say(
        console,
        f"[bold]{found.win_rate:.2f}[/] ({100 * found.confidence:g}% CI {low:.2f} to {high:.2f}): "
        f"{found.aligned:,} prefer the aligned model, {found.base:,} the base, {found.equal:,} neither",
        head="Win rate: ",
    )
    if found.unreadable:
        say(console, f"{found.unreadable:,} are neither A, B nor equal, and are not counted.", head="Answers: ")
    if found.agreement:
        console.print()
        console.print(_agreement(found))


def _agreement(found: "Ratings") -> Table:
    """How often each score prefers what people prefer."""
    table = Table(box=None, pad_edge=False)
    for heading in ("score", "agrees with people", "of prompts", f"{100 * found.confidence:g}% CI"):
        table.add_column(heading, header_style="dim", justify="left" if heading == "score" else "right")
    for name, each in found.agreement.items():
        rate = "–" if each.rate is None else f"{each.rate:.2f}"
        interval = "–" if each.rate_ci is None else f"{each.rate_ci[0]:.2f} to {each.rate_ci[1]:.2f}"
        table.add_row(escape(name), rate, f"{each.prompts:,}", interval)
    return table
