"""The tables of a result in a terminal: every figure, the gates, sample texts, and the points of a sweep."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alignment.judging.card import CONTROL_SIGNS, result_rows
from alignment.judging.report import EvalReport, Judgement, SampleRow
from flows.cli.console import BAD, GOOD, plain_table, say

SAMPLES = 3  # prompts whose texts are shown
MAX_TEXT = 280  # characters of each
LEFT = {"", "gate", "loss", "verdict"}  # columns of words


def result_table(report: EvalReport) -> Table:
    """The evaluation: each figure before, after, and the change."""
    table = _table(f"{report.prompts:,} held-out prompts", "", "base", "aligned", "change")
    for row in result_rows(report):
        table.add_row(*map(escape, row))
    return table


def gates_table(judgement: Judgement) -> Table:
    """Each gate with its value, bound and verdict."""
    table = _table("Gates", "gate", "value", "bound", "verdict")
    for gate in judgement.gates:
        verdict = f"[{GOOD}]passed[/]" if gate.passed else f"[{BAD}]refused[/]"
        table.add_row(escape(gate.name), f"{gate.value:.3f}", gate.bound, verdict)
    for name, why in judgement.not_applied.items():
        table.add_row(escape(name), "–", "–", f"not applied: {escape(why)}")
    return table


def show_samples(rows: Sequence[SampleRow], console: Console, limit: int = SAMPLES) -> None:
    """The first held-out prompts, with what base and aligned model made of each, one below the other."""
    say(console, "[bold]Held-out prompts, not chosen by hand[/]")
    for row in rows[:limit]:
        prompt, *texts = row.shown
        answers = [text.removeprefix("" if row.messages else prompt) for text in texts]
        console.print()
        for name, text in zip(("prompt", "base", "aligned"), (prompt, *answers), strict=True):
            shown = escape(_cut(" ".join(text.split()).translate(CONTROL_SIGNS)))
            say(console, shown, head=f"[bold]{name:<9}[/]", fold=True)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def show_points(points: Sequence[Mapping[str, str]], console: Console) -> None:
    """A sweep: one row per point, and below the table what refused or ended the others."""
    headings = {
        **{"point": "", "loss": "loss", "beta": "beta", "learning rate": "lr", "reward gain": "reward gain"},
        **{"win rate": "won", "KL per token": "KL", "perplexity ratio": "ppl", "verdict": "verdict"},
    }
    table = _table(f"{len(points)} points", *headings.values())
    for point in points:
        colour = GOOD if point["verdict"] == "passed" else BAD
        table.add_row(*(f"[{colour}]{point[name]}[/]" if name == "verdict" else point[name] for name in headings))
    if console.measure(table).maximum > console.width:
        table.padding = (0, 1, 0, 0)
    console.print(table)
    console.print()
    for point in points:
        if why := point["refused by"] or (point["verdict"] == "failed" and point["why"]):
            say(console, escape(why), head=f"Point {point['point']} {point['verdict']}: ")
    console.print()


def _table(title: str, *headings: str) -> Table:
    return plain_table(title, *headings, words=LEFT - {""} if title.endswith("points") else LEFT)
