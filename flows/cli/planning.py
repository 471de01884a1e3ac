"""A plan as a table for the terminal; it imports neither Prefect nor torch, so it is there at once."""

from rich.table import Table

from alignment.config import AlignConfig
from alignment.stages.store import Store
from tasks.pipeline import PIPELINE


def plan_table(config: AlignConfig, store: Store) -> Table:
    """Every stage, whether the store has it, and what it made or would make at most.

    Behind a stage that is still to be computed nothing is known: where its result comes out as it was before, what
    follows is found in the store.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "key", "state", "counts"):
        table.add_column(heading, header_style="bold")
    for item in PIPELINE.plan(config, store):
        if item.found is not None:
            state = "[green]cached[/green]"
            counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in item.found.counts.items())
        else:
            known = item.key is not None or not store.has(item.stage.name)
            state = "to compute" if known else "if need be"
            counts = f"[dim]{item.stage.makes(config)}[/dim]"
        table.add_row(item.stage.name, (item.key or "–")[:10], state, counts)
    return table
