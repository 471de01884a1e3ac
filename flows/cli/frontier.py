"""The command `frontier`, and its tables: every training at its end, and the best policy within each KL."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alignment.config import build_frontier, frontier_configs
from alignment.judging.formats import NONE, plain
from alignment.judging.frontier import LIMITS, FrontierPoint, drop_after_peak, trajectories
from alignment.judging.frontier_table import reward_rows, with_error, words
from flows.cli.console import BAD, GOOD, plain_table, say
from flows.cli.flags import Flags, overrides
from flows.cli.pipeline import ConfigPath, Debug, axes, begin, groups, several, wanted_config
from flows.cli.servers import servers_for_a_flow
from flows.settings import QUICKSTART

if TYPE_CHECKING:
    from flows.frontier import FrontierResult
    from tasks.frontier import Found

AXES = {"losses": "loss", "betas": "beta", "divergences": "divergence", "learning_rates": "learning_rate"}
"""What may be varied, with the field of `dpo` that has one value of it."""

SPARE = ("lost", "ppl", "sampled")
"""Columns that a table does without where the terminal is too narrow, the first one first."""
UNBOUNDED = 1_000  # columns


def frontier(
    *,
    flags: Flags = None,
    losses: Annotated[list[str] | None, several("Losses to try [hinge sigmoid, or --dpo.loss]")] = None,
    betas: Annotated[list[float] | None, several("Values of beta to try [0.05 0.1 0.3 0.5 1 5, or --dpo.beta]")] = None,
    divergences: Annotated[list[str] | None, several("Divergences to try [--dpo.divergence]")] = None,
    learning_rates: Annotated[list[float] | None, several("Learning rates to try [--dpo.learning-rate]")] = None,
    seeds: Annotated[list[int] | None, several("Seeds to try [--seed]")] = None,
    evaluate_every: Annotated[int | None, Parameter(help="Steps between two evaluations [25]")] = None,
    held_out: Annotated[int | None, Parameter(help="Held-out prompts to measure on, the first so many [all]")] = None,
    ceiling_samples: Annotated[
        int | None, Parameter(help="The reference's samples of each, for the ceiling [64]")
    ] = None,
    config: ConfigPath = QUICKSTART,
    debug: Debug = False,
) -> int:
    """Measure reward against KL of many trainings on their way, beside the best that is possible.

    Each loss and beta is trained on the same pairs and measured every few steps on held-out prompts. Nothing is
    registered.
    """
    wanted = wanted_config(config, flags)
    varied = axes(
        overrides(flags), AXES, losses=losses, betas=betas, divergences=divergences, learning_rates=learning_rates
    )
    settings = build_frontier(
        **varied,
        seeds=seeds,
        evaluate_every=evaluate_every,
        held_out=held_out,
        ceiling_samples=ceiling_samples,
    )
    frontier_configs(wanted, settings)  # raises now what would stop the flow
    console = begin(config, wanted, debug)
    with servers_for_a_flow(console):
        from flows.frontier import frontier as frontier_flow

        found = frontier_flow(**groups(wanted), frontier=settings)
    show(found, console)
    return 0


def show(result: "FrontierResult", console: Console) -> None:
    """Print what was found, and where to look."""
    found = result.curves
    console.print()
    show_trainings([point for each in found for point in each.points], console)
    console.print()
    for each in found:
        show_best(each, console, f", {each.seeds}" if len(found) > 1 else "")
        console.print()
    if len(found) > 1:
        show_shares(found, console)
        console.print()
    for named, why in result.failed.items():
        say(console, escape(why), head=f"[{BAD}]failed[/] {escape(named)}: ")
    say(console, f"[bold]{escape(result.told)}[/]")
    say(console, escape(result.page), head="Look at it  ")
    say(console, escape(result.where), head="In MLflow   ")


def show_trainings(points: Sequence[FrontierPoint], console: Console) -> None:
    """One row per training: its last policy, what it lost again after its highest reward, and which gates refuse it.

    Where the terminal is too narrow for the gates' names, it says whether they passed.
    """
    found = trajectories(points)
    more = _varied(points)
    figures = ("loss", "beta", *more, "step", "reward", "KL", "sampled", "ppl", "lost")
    named = () if all(training[-1].passed for training in found) else (("refused by", 0),)
    title = f"{len(found)} training{'s' * (len(found) > 1)}, each at its end"
    rows = [
        dict(zip((*figures, "gates", "refused by"), _at_its_end(training, more.values()), strict=True))
        for training in found
    ]
    for verdict, spared in (*named, *(("gates", spared) for spared in range(len(SPARE) + 1))):
        shown = [heading for heading in (*figures, verdict) if heading not in SPARE[:spared]]
        table = plain_table(title, *shown, words={"loss", "gates", "refused by", "divergence"})
        for row in rows:
            table.add_row(*(row[heading] for heading in shown))
        if _fits(table, console):
            break
    console.print(table)
    wider = f" A wider terminal shows {', '.join(SPARE[:spared])} too." if spared else ""
    say(
        console,
        "KL is of a completion, in nats, exact at each token, and sampled by log-ratios; ppl is the perplexity under "
        f"the base over the base's own; lost is what the reward fell after its highest step.{wider}",
    )


def _at_its_end(training: Sequence[FrontierPoint], varied: Iterable[str]) -> tuple[str, ...]:
    """The row of a training, with its values of the `varied` fields."""
    last = training[-1]
    return (
        escape(last.loss),
        f"{last.beta:g}",
        *(escape(_short(getattr(last, field))) for field in varied),
        f"{last.step:,}",
        with_error(last.reward, last.reward_se),
        f"{plain(last.kl)} ± {plain(last.kl_se)}",
        plain(last.kl_sampled),
        plain(last.perplexity_ratio),
        plain(drop_after_peak(training).drop),
        f"[{GOOD}]passed[/]" if last.passed else f"[{BAD}]refused[/]",
        NONE if last.passed else f"[{BAD}]{escape(', '.join(map(words, last.refused_by)) or 'the gates')}[/]",
    )


def show_best(found: "Found", console: Console, more: str = "") -> None:
    """The best policy within each KL, and how near it is to the ceiling there."""
    headings = ("within", "reward", "KL", "ceiling", "share", "policy", "gates")
    table = plain_table(f"The best within a KL, in nats{more}", *headings, words={"policy", "gates"})
    rows = reward_rows(found.points, found.ceiling, found.best_of_n, found.reference)
    for row in rows:
        gates = row["gates"].partition(" ")[0]
        table.add_row(
            *(row[name] for name in ("KL at most", "best reward", "its KL", "ceiling", "of the ceiling")),
            escape(row["of"]),
            f"[{GOOD if gates == 'passed' else BAD}]{gates}[/]" if gates != NONE else NONE,
        )
    if not _fits(table, console):
        table.columns[headings.index("policy")].no_wrap = False
    console.print(table)
    doubt = " ~ marks where its samples are too few to be trusted." if "~" in str(rows) else ""
    say(
        console,
        f"The ceiling is the highest reward that is possible within a KL, and share what of its gain is won.{doubt}",
    )


def show_shares(found: "Sequence[Found]", console: Console) -> None:
    """What of the ceiling's gain is won within each KL with each seed, where their rewards differ, and the mean."""
    from tasks.frontier import mean_share, told_share

    title = "Share of the gain within a KL"
    table = plain_table(title, "trained with", *(f"{limit:g}" for limit in LIMITS), words={"trained with"})
    shares = [[each.share(limit) for limit in LIMITS] for each in found]
    for each, row in zip(found, shares, strict=True):
        table.add_row(each.seeds, *(told_share(share, "~") for share in row))
    table.add_row("in the mean", *(told_share(mean_share(column), "~") for column in zip(*shares, strict=True)))
    console.print(table)
    say(
        console,
        "Each seed's reward has a scale of its own: rewards of two seeds do not compare, shares of the gain do.",
    )


def _fits(table: Table, console: Console) -> bool:
    """Whether the terminal is wide enough for a table, whose columns stand closer together where it is not."""
    unbounded = console.options.update(max_width=UNBOUNDED)  # else none is measured as wider than the terminal
    if console.measure(table, options=unbounded).maximum > console.width:
        table.padding = (0, 1, 0, 0)
    return console.measure(table, options=unbounded).maximum <= console.width


def _varied(points: Sequence[FrontierPoint]) -> dict[str, str]:
    """The columns of what more than loss and beta differs, with the field of each."""
    fields = {"divergence": "divergence", "lr": "learning_rate", "seed": "seed"}
    return {name: field for name, field in fields.items() if len({getattr(point, field) for point in points}) > 1}


def _short(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
