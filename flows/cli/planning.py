"""What a plan looks like in a terminal; it needs neither Prefect nor torch, so it is there at once."""

from rich.table import Table

from alignment.config import AlignConfig
from alignment.stages.plan import plan
from alignment.stages.store import Store


def plan_table(config: AlignConfig, store: Store) -> Table:
    """Every stage, whether the store has it, and what it made or would make at most."""
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "key", "state", "counts"):
        table.add_column(heading, header_style="bold")
    for item in plan(config, store):
        if item.found is not None:
            state = "[green]cached[/green]"
            counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in item.found.counts.items())
        else:
            state, counts = "to compute", f"[dim]{item.stage.makes(config)}[/dim]"
        table.add_row(item.stage.name, item.key[:10], state, counts)
    return table
