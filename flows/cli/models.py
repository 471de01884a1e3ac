"""The commands that show and hand out registered models: models, export."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from flows.cli.console import make_console, quieten

if TYPE_CHECKING:
    from tasks.registry.listing import ListedVersion

NONE = "–"
COLOURS = {"pass": "green", "fail": "red", "refused since": "red"}
Model = Annotated[
    str, Parameter(help="Registered name (its champion, else its challenger), name@alias, or models:/name/3")
]


def models(
    name: Annotated[str, Parameter(help="Name of one registered model [all]", show_default=False)] = "",
    /,
    *,
    json: Annotated[
        bool, Parameter(help="Print JSON: a list with an object a version", negative=(), show_default=False)
    ] = False,
) -> int:
    """List the registered models: each version with its verdict, reward gain, aliases and date."""
    quieten()
    from flows.library import models as list_models

    found = list_models(name)
    if json:
        from json import dumps

        sys.stdout.write(f"{dumps([each.model_dump(mode='json') for each in found], indent=2, ensure_ascii=False)}\n")
        return 0
    console = make_console()
    if not found:
        console.print("Nothing is registered yet: `plumbline run` registers what passes its gates.", highlight=False)
    for number, model in enumerate(dict.fromkeys(each.name for each in found)):
        if number:
            console.print()
        console.print(versions_table(model, [each for each in found if each.name == model]))
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

    made = export_model(model, folder, gguf=gguf)
    size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    make_console().print(f"{made}: {model}, {size / 1e6:,.1f} MB", highlight=False, soft_wrap=True, markup=False)
    return 0


def versions_table(name: str, found: "list[ListedVersion]") -> Table:
    """The versions of one model, the newest first; it fits 80 columns."""
    table = Table(box=None, pad_edge=False, title=escape(name), title_justify="left", title_style="bold")
    for heading in ("version", "verdict", "reward gain", "aliases", "registered"):
        justify: Literal["left", "right"] = "right" if heading == "version" else "left"
        table.add_column(heading, header_style="dim", justify=justify, no_wrap=heading != "aliases")
    for each in found:
        colour = COLOURS.get(each.verdict, "dim")
        when = each.registered.astimezone()
        table.add_row(
            each.version,
            f"[{colour}]{each.verdict}[/]",
            gain(each),
            escape(", ".join(each.aliases)) or NONE,
            f"{when:%Y-%m-%d %H:%M}",
        )
    return table


def gain(version: "ListedVersion") -> str:
    """The gain of the mean reward with its interval."""
    if version.reward_gain is None:
        return NONE
    if version.reward_gain_ci is None:
        return f"{version.reward_gain:+.2f}"
    low, high = version.reward_gain_ci
    return f"{version.reward_gain:+.2f} ({low:+.2f} to {high:+.2f})"
