"""The command that sets two runs or versions against each other: in the terminal, and as a page."""

import sys
from json import dumps
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alignment.judging.formats import signed
from flows.cli.console import BAD, GOOD, NOTE, make_console, quieten, say
from flows.cli.report import SUBJECT, Debug, Out, written

if TYPE_CHECKING:
    from alignment.judging.paired import Beside, Paired
    from alignment.judging.sections import Run
    from tasks.comparing import Comparison

MAX_TEXT = 220  # characters of a text that are shown
HEAD = 10  # columns before a text


def compare(
    a: Annotated[str, Parameter(help=f"The one that is compared with: {SUBJECT}")],
    b: Annotated[str, Parameter(help="The one that is set against it, named likewise")],
    /,
    *,
    out: Out = None,
    sample: Annotated[
        int,
        Parameter(
            help="Have both write to so many of A's held-out prompts now [what they recorded]", show_default=False
        ),
    ] = 0,
    show: Annotated[int, Parameter(help="Largest gains, and largest losses, whose texts are printed")] = 2,
    json: Annotated[
        bool, Parameter(help="Print a JSON object; a page is then written with --out alone", negative=())
    ] = False,
    debug: Debug = False,
) -> int:
    """Set B against A on the same held-out prompts: reward, wins, KL and length, paired by prompt, with intervals.

    It prints the texts on which B gains and loses most, and writes both runs as one HTML page: figures, gates, curves,
    settings that differ, samples. Scores of different rewards are not set against each other. --sample draws new
    samples, where the two were judged on different prompts.
    """
    quieten(debug)
    from flows.library import compared, write_comparison

    found = compared(a, b, sample=sample)
    if json:
        sys.stdout.write(f"{dumps(summary(found), indent=2, ensure_ascii=False)}\n")
        if out is not None:
            write_comparison(found, out)
        return 0
    console = make_console()
    tell(found, console, show)
    return written(write_comparison(found, out), console)


def tell(found: "Comparison", console: Console, show: int) -> None:
    """Print what is compared, what keeps it from being so, the figures, and the texts."""
    for tag, run in (("A", found.one), ("B", found.two)):
        passed = run.judgement.verdict == "pass"
        verdict = f"[{GOOD}]passed[/]" if passed else f"[{BAD}]refused[/]"
        say(console, f"{escape(run.title)}, {verdict}", head=f"[bold]{tag}[/]  ")
    _tell_settings(found, console)
    for sentence in found.warnings:
        say(console, f"[{NOTE}]{escape(sentence)}[/]", head=f"[{NOTE}]{'Care':<{HEAD}}[/]")
    console.print()
    paired = found.paired
    if not paired.prompts:
        say(
            console,
            "They share no held-out prompt, so nothing is paired. --sample 64 has both write to the same prompts now.",
        )
    else:
        level = f"{100 * paired.confidence:g}%"
        say(
            console,
            f"[bold]B against A[/] on the same {paired.prompts:,} held-out prompts, with {level} intervals:",
        )
        console.print(figures_table(paired))
        say(console, escape(_conclusion(paired, " (bold)" if console.is_terminal else "")))
    for note in paired.notes:
        say(console, escape(note), head=f"{'Note':<{HEAD}}")
    for title, rows in (
        ("Largest gains of B over A", paired.gains(show)),
        ("Largest losses of B to A", paired.losses(show)),
    ):
        if rows:
            console.print(f"\n[bold]{title}[/]")
            for row in rows:
                _tell_sample(row, console)
    console.print()


def figures_table(paired: "Paired") -> Table:
    """Each figure of both, and the change; those whose interval leaves out that both are the same are bold."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "A", "B", "B against A"):
        table.add_column(heading, header_style="dim", justify="right" if heading else "left", no_wrap=bool(heading))
    for each in paired.figures:
        text = f"[bold]{escape(each.text)}[/]" if each.differs else escape(each.text)
        table.add_row(escape(each.title), *map(escape, each.values), text)
    return table


def _conclusion(paired: "Paired", mark: str) -> str:
    """Which figures tell the two apart, and how the table marks them."""
    apart = [each.title.partition(",")[0] for each in paired.figures if each.differs]
    if apart:
        return f"Told apart by {', '.join(apart)}{mark}: the interval leaves out that both are the same."
    return "No figure tells them apart: each interval holds that both are the same." if paired.figures else ""


def _tell_settings(found: "Comparison", console: Console) -> None:
    from alignment.judging.sections import settings_beside

    rows = [row for row in settings_beside(found.one, found.two) if not row[0].startswith("registry.")]
    told = "; ".join(f"{name} {one} in A, {two} in B" for name, one, two in rows[:4])
    more = f"; and {len(rows) - 4} more" if len(rows) > 4 else ""
    say(console, escape(f"{told}{more}") if rows else "the same settings", head=f"{'Settings':<{HEAD}}")


def _tell_sample(row: "Beside", console: Console) -> None:
    from alignment.judging.sections import texts

    prompt, _, first = texts(row.one)
    second = texts(row.two)[2]
    gain = "" if row.gain is None else signed(row.gain)
    console.print()
    say(console, f"[bold]{escape(_cut(prompt) or '(from the start of a text)')}[/]", head=f"{gain:<{HEAD}}")
    for tag, text, reward in (("A", first, row.one.aligned_reward), ("B", second, row.two.aligned_reward)):
        score = "" if reward is None else signed(reward)
        say(console, escape(_cut(text) or "(nothing)"), head=f"{tag} {score:<{HEAD - 2}}", fold=True)


def _cut(text: str) -> str:
    from alignment.judging.card import CONTROL_SIGNS

    shown = " ".join(text.split()).translate(CONTROL_SIGNS)
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 1]}…"


def summary(found: "Comparison") -> dict[str, Any]:
    """What `--json` prints: both runs, the figures, what was not compared and why, and every sample that is paired."""
    paired = found.paired
    return {
        "a": _run(found.one),
        "b": _run(found.two),
        "prompts": paired.prompts,
        "confidence": paired.confidence,
        "same_reward": paired.same_reward,
        "figures": {
            each.name: {"a": each.a, "b": each.b, "change": each.change, "interval": each.interval}
            for each in paired.figures
        },
        "warnings": list(found.warnings),
        "notes": list(paired.notes),
        "samples": [
            {
                "id": each.id,
                "prompt": each.one.prompt,
                "a": each.one.aligned,
                "a_reward": _number(each.one.aligned_reward),
                "b": each.two.aligned,
                "b_reward": _number(each.two.aligned_reward),
                "gain": each.gain,
            }
            for each in paired.samples
        ],
    }


def _run(run: "Run") -> dict[str, str]:
    return {"run_id": run.id, "title": run.title, "verdict": run.judgement.verdict}


def _number(value: float | None) -> float | str | None:
    """A score as JSON has it: one that is not finite is a text."""
    return value if value is None or isfinite(value) else str(value)
