"""The commands that show and hand out registered models: models, export."""

import sys
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from alignment.judging.formats import NONE
from alignment.judging.headline import WRITTEN
from flows.cli.console import BAD, GOOD, make_console, quieten, say

if TYPE_CHECKING:
    from tasks.registry.listing import Figures, ListedVersion, Refused

COLOURS = {"pass": GOOD, "fail": BAD, "refused since": BAD}
FIGURES = {
    "gain": "reward_gain",
    "won": "win_rate",
    "accuracy": "preference_accuracy",
    "KL": "kl_per_token",
}
"""The headlines that tables have, by the headings of their columns."""
SHORT = 8  # characters of a run's id, which tell it apart
Model = Annotated[
    str, Parameter(help="Registered name (its champion, else its challenger), name@alias, or models:/name/3")
]


def models(
    name: Annotated[str, Parameter(help="Name of one registered model [all]", show_default=False)] = "",
    /,
    *,
    refused: Annotated[
        bool, Parameter(help="Also list the newest runs that the gates refused", negative=(), show_default=False)
    ] = False,
    json: Annotated[
        bool,
        Parameter(
            help="Print JSON: a list with an object a version; with --refused an object with `versions`, `refused` "
            "and how many more there are, `more_refused`",
            negative=(),
            show_default=False,
        ),
    ] = False,
) -> int:
    """List the registered models: each version with its verdict, figures, aliases, last decision and date."""
    quieten()
    from flows.library import registry

    with registry():
        from tasks.registry.listing import list_refused, list_versions

        runs = list_refused(name) if refused else None
        found = list_versions(name, must_exist=runs is None or not runs.newest)
    if json:
        from json import dumps

        from alignment.judging.report import as_json

        told: Any = [as_json(each) for each in found]
        if runs is not None:
            told = {
                "versions": told,
                "refused": [as_json(each) for each in runs.newest],
                "more_refused": runs.more,
            }
        sys.stdout.write(f"{dumps(told, indent=2, ensure_ascii=False, allow_nan=False)}\n")
        return 0
    console = make_console()
    if not found:
        from tasks.registry.connection import place

        nothing = (
            f"Nothing is registered in MLflow at {place().shown}: `plumbline run` registers what passes its gates."
        )
        say(console, escape(nothing))
    for number, model in enumerate(dict.fromkeys(each.name for each in found)):
        if number:
            console.print()
        console.print(versions_table(model, [each for each in found if each.name == model]))
    if runs is not None:
        console.print()
        console.print(refused_table(runs) if runs.newest else "No run was refused.")
    return 0


def export(
    model: Model,
    folder: Annotated[Path, Parameter(help="Folder to write; it must not exist, or be empty")],
    /,
    *,
    gguf: Annotated[
        bool, Parameter(help="Also write a GGUF file, for llama.cpp and Ollama", negative=(), show_default=False)
    ] = False,
) -> int:
    """Write a registered model as a `save_pretrained` folder: safetensors, its config, tokenizer and chat template."""
    quieten()
    from flows.library import export as export_model
    from flows.library import registry
    from tasks.registry.naming import find_registered

    with registry():
        version = find_registered(model)
    made = export_model(version, folder, gguf=gguf)
    size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    taken = version if version == model else f"{version} ({model})"
    say(make_console(), escape(f"{made}: {taken}, {size / 1e6:,.1f} MB"))
    return 0


def versions_table(name: str, found: "list[ListedVersion]") -> Table:
    """The versions of one model, the newest first; it fits 80 columns."""
    headings = figures_of(found)
    table = _table(name, ("v", "verdict", *headings, "aliases", "decision", "registered"))
    for each in found:
        colour = COLOURS.get(each.verdict, "dim")
        table.add_row(
            each.version,
            f"[{colour}]{each.verdict}[/]",
            *figures(each, headings),
            escape(", ".join(each.aliases)) or NONE,
            escape(each.decision) or NONE,
            f"{each.registered.astimezone():%Y-%m-%d}",
        )
    return table


def refused_table(found: "Refused") -> Table:
    """Runs that the gates refused, the newest first; it fits 80 columns."""
    headings = figures_of(found.newest)
    table = _table("refused runs, newest first", ("run", "began", *headings, "refused by", "name"))
    if found.more:
        table.caption, table.caption_justify = f"and {found.more:,} more", "left"
    for each in found.newest:
        gates = escape(", ".join(gate.replace("_", " ") for gate in each.gates))
        began = f"{each.started.astimezone():%Y-%m-%d}"
        table.add_row(each.run_id[:SHORT], began, *figures(each, headings), f"[{BAD}]{gates}[/]", escape(each.name))
    return table


def figures_of(found: "Sequence[Figures]") -> tuple[str, ...]:
    """Which columns of figures a table of 80 columns has room for: gain, prompts won and KL.

    Where no reward judged any of them, the accuracy stands in place of the first two; where none judged some, of wins.
    """
    by_pairs = [each.reward_gain is None and each.preference_accuracy is not None for each in found]
    left_out = {"accuracy"} if not any(by_pairs) else {"gain", "won"} if all(by_pairs) else {"won"}
    return tuple(heading for heading in FIGURES if heading not in left_out)


def figures(each: "Figures", headings: Sequence[str]) -> list[str]:
    """The figures as a table has them; of one that is not there, or not finite, a dash."""
    values = ((FIGURES[heading], getattr(each, FIGURES[heading])) for heading in headings)
    return [NONE if value is None or not isfinite(value) else WRITTEN[name](value) for name, value in values]


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, title=escape(title), title_justify="left", title_style="bold")
    for heading in headings:
        right = heading in ("v", *FIGURES)
        wraps = heading in ("aliases", "refused by", "name")
        table.add_column(
            heading, header_style="dim", justify="right" if right else "left", no_wrap=not wraps, overflow="fold"
        )
    return table
