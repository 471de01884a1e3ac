"""The commands on the stage store: store list, store verify, store prune."""

from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.markup import escape
from rich.table import Table

from alignment.errors import REFUSED, InputError
from alignment.stages.stored import Stored
from flows.cli.console import BAD, GOOD, make_console, quieten, say

if TYPE_CHECKING:
    from tasks.keeping import Row

LONG = "30d"
"""How old has to be what a dry run would delete, where nobody says so; what deletes has no default."""

app = App(name="store", help="Look at the stage store, and delete what nothing needs any more.")


@app.command(name="list")
def list_stages() -> int:
    """List the finished stages, the newest first: size, age, and what needs each; and checkpoints of others.

    The shards of a stage are one row.
    """
    quieten()
    from flows.library import registry

    with registry():
        from tasks.home import store
        from tasks.keeping import listed, rows, underway

        found, unfinished, place = rows(listed()), underway(), store().place
    console = make_console()
    shards, whole = sum(each.shards for each in found), sum(not each.shards for each in found)
    told = _stages(whole) + (f" and {_plural(shards, 'shard')}" if shards else "")
    say(console, f"{told}, {_bytes(sum(each.size for each in found))}, in [bold]{escape(place)}[/]")
    if found:
        console.print(_table(found, with_shards=shards > 0))
    for left in unfinished:
        what = "is computed now" if left.held else "another machine can go on with it"
        size, age = _bytes(left.size), _age(left.saved)
        say(console, escape(f"not finished: {left.stage}/{left.key}, {size}, {age} old, by {left.host}; {what}"))
    return 0


@app.command(name="verify")
def verify(
    *,
    delete: Annotated[
        bool, Parameter(help="Delete what is damaged; the next run computes it again", negative=(), show_default=False)
    ] = False,
) -> int:
    """Read every file, and compare it with its manifest. It ends with 0 where nothing damaged is left, else with 3."""
    quieten()
    from flows.library import registry

    console, count, bad, gone = make_console(), 0, 0, []
    with registry():
        from tasks.keeping import damaged, damaged_underway

        for each, damage, deleted in chain(damaged(delete), damaged_underway(delete)):
            count += isinstance(each, Stored)
            if damage:
                bad += 1
                gone += [each.size] * deleted
                what, why = "deleted" if deleted else "damaged", ""
                if delete and not deleted:
                    what, why = "kept", "; it is computed now, and what comes next of it replaces this"
                say(console, escape(f"{each.stage}/{each.key}: {damage}{why}"), head=f"[bold {BAD}]{what}[/] ")
    some = "" if len(gone) == bad else f"{len(gone):,} of them "
    told = f", {some}deleted ({_bytes(sum(gone))})" if gone else ""
    verdict = f"[bold {BAD}]{bad:,} damaged[/]{told}" if bad else f"[bold {GOOD}]all are whole[/]"
    say(console, f"{_stages(count)}: {verdict}")
    return REFUSED if len(gone) < bad else 0


@app.command(name="prune")
def prune_stages(
    *,
    older_than: Annotated[
        str,
        Parameter(
            help=f"Only what was written longer ago: 30d, 12h, 2w; to be given, but for a dry run, which takes {LONG}",
            show_default=False,
        ),
    ] = "",
    dry_run: Annotated[bool, Parameter(help="Only say what would be deleted", negative=(), show_default=False)] = False,
    only_this_mlflow: Annotated[
        bool,
        Parameter(
            help="What another MLflow than this has registered does not count",
            negative=(),
            show_default=False,
        ),
    ] = False,
) -> int:
    """Delete old stages that nothing needs, and what processes that died have left unfinished.

    Never what a registered version was made from, nor what a running process uses.
    """
    from tasks.keeping import duration

    if not older_than and not dry_run:
        raise InputError(
            f"store prune: how old has to be what is deleted? Give --older-than {LONG}, 12h or 2w; --dry-run alone "
            f"shows what {LONG} would delete"
        )
    older_than = older_than or LONG
    long = duration(older_than)
    quieten()
    from flows.library import registry

    with registry():
        from tasks.keeping import prune

        found = prune(long, dry_run=dry_run, only_this_mlflow=only_this_mlflow)
    console = make_console()
    for each in found.stages:
        say(console, f"{escape(f'{each.stage}/{each.key}')}  {_bytes(each.size)}, {_age(each.written)} old")
    for copy in found.copies:
        say(console, f"{escape(copy.name)}  {_bytes(copy.size)}, not used for {_age(copy.used)}")
    parts = {
        _stages(len(found.stages)): [each.size for each in found.stages],
        _plural(len(found.copies), "copy of a registered model", "copies of registered models"): [
            each.size for each in found.copies
        ],
        _plural(
            found.unfinished, "unfinished draft, upload or checkpoint", "unfinished drafts, uploads and checkpoints"
        ): [found.unfinished_size] * bool(found.unfinished),
    }
    told = [f"{what} ({_bytes(sum(sizes))})" for what, sizes in parts.items() if sizes]
    what = f"would be deleted with --older-than {older_than}" if dry_run else "deleted"
    say(console, f"{what}: {', '.join(told) or 'nothing'}")
    return 0


def _table(rows: "list[Row]", *, with_shards: bool) -> Table:
    """Keys, which are there to be copied, stay whole; where columns are few, what needs a stage takes several lines."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", header_style="bold", no_wrap=True)
    table.add_column("key", header_style="bold", no_wrap=True)
    for heading in ("shards", "size", "age") if with_shards else ("size", "age"):
        table.add_column(heading, header_style="bold", no_wrap=True, justify="right")
    table.add_column("needed by", header_style="bold", overflow="fold")
    for row in rows:
        shards = [f"{row.shards:,}" if row.shards else ""] * with_shards
        table.add_row(row.stage, row.key, *shards, _bytes(row.size), _age(row.written), escape(_needed(row)))
    return table


def _needed(held: "Row") -> str:
    stages = _stages(held.stages) if held.stages else ""
    running = "a running process" if held.used else ""
    return ", ".join(part for part in (*held.versions, running, stages) if part) or "nothing"


def _stages(count: int) -> str:
    return _plural(count, "stage")


def _plural(count: int, what: str, several: str = "") -> str:
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"


def _bytes(size: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} B"


def _age(written: datetime) -> str:
    age = datetime.now(UTC) - written
    if age >= timedelta(days=2):
        return f"{age.days} days"
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} hours" if hours >= 2 else _plural(round(age.total_seconds() / 60), "minute")
