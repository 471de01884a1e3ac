"""The command that looks at data before anything is computed: check."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alignment.config import build_config, merge
from alignment.data.words import NAME as WORDS
from alignment.errors import REFUSED
from flows.cli.console import BAD, GOOD, make_console, quieten, say
from flows.cli.flags import Flags, named_by_flags, overrides
from flows.settings import load_config

if TYPE_CHECKING:
    from expectations.checking import Checked

ALONE: dict[str, Any] = {
    "data": {"rows": 0},
    "base": {"model": WORDS},
    "reward": {"kind": "none"},
    "prompts": {"source": "pairs", "count": 10_000_000, "eval_count": 1_000_000},
    "pairs": {"source": "given"},
    "sampling": {"total_tokens": 131_072},
}
"""What is checked without a configuration: every row, as a given pair, of any length."""


def check(
    data: Annotated[
        str, Parameter(help="What data.path takes [what the configuration names]", show_default=False)
    ] = "",
    /,
    *,
    flags: Flags = None,
    config: Annotated[
        Path | None,
        Parameter(
            help="YAML file of the run that the data is for [none: given pairs in TRL's formats]", show_default=False
        ),
    ] = None,
    debug: Annotated[bool, Parameter(help="Show the traceback of an error", negative=())] = False,
) -> int:
    """Validate given pairs and prompts, before anything is computed.

    It ends with 0 where all is fine, 3 where a run would stop, 2 for data that cannot be read.

    With --base.model, lengths are in its tokens, and its chat template and context are tried; without, they are in
    words. Prompts that are no pairs are looked at with --prompts.source.
    """
    given = merge(overrides(flags), {"data": {"path": data}} if data else {})
    with named_by_flags(given):
        if config is not None:
            wanted = load_config(config, given)
        else:
            other = given.get("prompts", {}).get("source", "pairs") != "pairs"
            alone = ALONE | {"pairs": {}, "reward": {"kind": "classifier", "model": "any"}} if other else ALONE
            wanted = build_config(alone, overrides=given)
    quieten(debug)
    logging.getLogger("alignment").addHandler(logging.NullHandler())  # what it would warn of is in the tables
    from flows.library import check as look

    found = look(wanted)
    show(found, make_console())
    return 0 if found.fine else REFUSED


def show(found: "Checked", console: Console) -> None:
    """Print what was found, in at most 80 columns where the console has no more."""

    say(console, f"[bold]{escape(found.data)}[/]: {found.rows:,} rows{_listed(found.formats)}")
    if found.model:
        say(console, f"Lengths are in tokens of {escape(found.model)}.")
    else:
        say(console, "Lengths are in words: pass --base.model to try its tokenizer, template and context.")
    if found.counts:
        say(console, f"Of the rows, {', '.join(f'{count:,} {name}' for name, count in found.counts.items())}.")
    for table in _tables(found):
        console.print()
        console.print(table)
    if found.not_applied:
        console.print()
        say(
            console, f"{', '.join(f'{name} ({why})' for name, why in found.not_applied.items())}.", head="Not applied: "
        )
    console.print()
    for problem in found.problems:
        say(console, escape(problem), head=f"[bold {BAD}]Refused:[/] ")
    if found.fine:
        say(console, f"[bold {GOOD}]Fine:[/] a run would train on these rows.")


def _tables(found: "Checked") -> Iterator[Table]:
    if found.apart:
        table = _table("Rows to look at", "reason", "rows", "the first are", "must be")
        for each in found.apart:
            more = ", …" if each.rows > len(each.where) else ""
            bound = each.bound if each.quarantined else "new, but for validation.max_duplicates of the set"
            table.add_row(each.name, f"{each.rows:,}", escape(", ".join(each.where)) + more, escape(bound))
        yield table
    of_set = [check for check in found.checks if check.scope == "set" and not check.not_applied]
    if of_set:
        table = _table("The set to train on", "figure", "found", "must be", "")
        for check in of_set:
            verdict = f"[{GOOD}]fine[/]" if check.passed else f"[{BAD}]REFUSED[/]"
            table.add_row(check.name, f"{check.observed:.4g}", escape(check.bound), verdict)
        yield table
    if found.lengths:
        table = _table(
            "Lengths in tokens" if found.model else "Lengths in words", "", "shortest", "median", "95 of 100", "longest"
        )
        for length in found.lengths:
            figures = (length.shortest, length.median, length.most, length.longest)
            table.add_row(length.name, *(f"{figure:,.0f}" for figure in figures))
        yield table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        right = number and heading in {"rows", "found", "shortest", "median", "95 of 100", "longest"}
        table.add_column(heading, justify="right" if right else "left", overflow="fold", header_style="bold")
    return table


def _listed(formats: dict[str, int]) -> str:
    return "".join(f"; {count:,} {name}" for name, count in formats.items())
