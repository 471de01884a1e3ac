"""A plan as a table for the terminal."""

from rich.markup import escape
from rich.table import Table

from flows.cli.console import BAD
from flows.planning import HEADINGS, Plan


def plan_table(plan: Plan) -> Table:
    """Every stage, whether the store has it, the memory that it takes, and what it made or would make at most."""
    table = Table(box=None, pad_edge=False, caption=f"memory: of {escape(plan.device)}", caption_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, header_style="bold")
    for name, key, state, memory, counts in plan.rows():
        made = state == "cached"
        table.add_row(
            name,
            key,
            f"[green]{state}[/green]" if made else state,
            memory.replace("too much", f"[{BAD}]too much[/]").replace("tight", "[yellow]tight[/]"),
            escape(counts) if made else f"[dim]{counts}[/dim]",
        )
    return table
