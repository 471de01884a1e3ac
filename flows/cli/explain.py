"""The command that tells what a model was made of: each step back to the data, down to one pair and its scores."""

import sys
from collections.abc import Iterable
from shlex import quote
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alignment.judging.formats import NONE, plain, signed
from flows.cli.console import BAD, GOOD, NOTE, make_console, quieten, say
from flows.cli.report import Debug, Subject
from flows.cli.result import runnable

if TYPE_CHECKING:
    from alignment.judging.story import Story, ToldPair, ToldSample
    from tasks.explaining import Explained, Step

DIGEST = 12  # characters of a digest that tell it apart
STEP = 12  # columns of a step's name
HEAD = 4  # columns before a text
MAX_TEXT = 600  # characters of a text that are shown


def explain(
    subject: Subject,
    /,
    *,
    sample: Annotated[
        str,
        Parameter(help="Id of a prompt, a sample or a pair: what became of that prompt", show_default=False),
    ] = "",
    quarantined: Annotated[
        bool, Parameter(help="List the pairs that validation set apart, with the reasons", negative=())
    ] = False,
    first: Annotated[int, Parameter(help="How many of them")] = 10,
    json: Annotated[bool, Parameter(help="Print a JSON object", negative=(), show_default=False)] = False,
    debug: Debug = False,
) -> int:
    """Show what a version or a run was made of: each step back to the data, and where it is.

    `why` tells why it was approved or refused; this tells what it came from. --sample goes down to one prompt: all its
    samples with their scores, the pairs that they became, and what validation said. Without it a few ids are listed.
    """
    quieten(debug)
    from flows.library import explain as walk_back

    found = walk_back(subject, sample, quarantined=first if quarantined else 0)
    if json:
        sys.stdout.write(f"{found.model_dump_json(indent=2)}\n")
        return 0
    console = make_console()
    if found.story is not None:
        tell_story(found.story, found.title, console)
    elif quarantined:
        tell_apart(found, console)
    else:
        tell(found, subject, console)
    return 0


def tell(found: "Explained", subject: str, console: Console) -> None:
    """Print every step, what is not here, and ids to begin with."""
    say(console, f"[bold]{escape(found.title)}[/], from the result back to the data")
    say(console, f"[dim]Folders are below {escape(found.home)}; before each stands the digest of its content.[/]")
    before = ""
    for step in found.steps:
        kind = "stage" if step.key else step.name
        if (kind in {"stage", "settings", "code"} and kind != before) or not before:
            console.print()
        before = kind
        _tell_step(step, found.home, console)
    console.print()
    if found.missing:
        say(console, f"[{NOTE}]{escape(found.missing)}[/]")
        console.print()
    named = quote(subject)
    if found.examples:
        say(console, "[bold]Look at one[/]")
        for each in found.examples:
            say(console, escape(each.what), head=f"  {each.id:<22}  ")
        say(console, escape(runnable(f"plumbline explain {named} --sample {found.examples[0].id}")), head="  ")
    if found.apart_total and any(step.name == "validation" and step.held for step in found.steps):
        say(console, escape(runnable(f"plumbline explain {named} --quarantined")), head="  ")


def _tell_step(step: "Step", home: str, console: Console) -> None:
    """One step: its name, and beside it what it is, and where."""
    from tasks.sentences import counted

    lines = [escape(line) for line in (*step.lines, counted(step.counts)) if line]
    if step.where:
        where = escape(step.where.removeprefix(f"{home}/"))
        content = f"{step.digest[:DIGEST]}  " if step.digest else ""
        lines.append(f"[{NOTE if step.held is False else 'dim'}]{content}{where}[/]")
    for number, line in enumerate(lines):
        name = step.name if number == 0 else ""
        say(console, line, head=f"[bold]{name:<{STEP}}[/]")


def tell_story(story: "Story", title: str, console: Console) -> None:
    """Print a prompt, its samples with their scores, and its pairs."""
    side = {"train": "trained on", "eval": "held out, never trained on"}.get(story.split, "")
    say(console, f"[bold]{escape(title)}[/], prompt {story.prompt_id}{f', {side}' if side else ''}")
    console.print()
    say(console, escape(_cut(story.prompt) or "(none: from the start of a text)"), head="Prompt  ", fold=True)
    for writer in dict.fromkeys(each.writer for each in story.samples):
        rows = [each for each in story.samples if each.writer == writer]
        console.print(f"\n[bold]What the {writer} model wrote to it[/]")
        for each in rows:
            _tell_sample(each, console)
    if story.pairs:
        console.print(f"\n[bold]{'Its pair' if len(story.pairs) == 1 else 'Its pairs'}[/]")
        for pair in story.pairs:
            _tell_pair(pair, console, texts=not story.samples)
    elif story.split == "train":
        console.print("\nNo pair was made of it: its samples tied, or fewer than two have a score.")


def _tell_sample(each: "ToldSample", console: Console) -> None:
    colour = {"chosen": GOOD, "rejected": BAD}.get(each.role, "dim")
    facts = [
        "no score" if each.reward is None else f"score {signed(each.reward, 3)}",
        *(f"{name} {'none' if value is None else signed(value, 3)}" for name, value in each.parts.items()),
        f"{each.tokens} tokens" if each.tokens is not None else "",
        {True: "ended", False: "cut off", None: ""}[each.finished],
        f"log p {signed(each.logprob)} under the {each.writer} model" if each.logprob is not None else "",
    ]
    role = f"[bold {colour}]{each.role or 'not paired'}[/]  " if each.writer == "base" and each.role else ""
    console.print()
    say(console, f"{role}{', '.join(fact for fact in facts if fact)}", head=f"{each.id}  ")
    say(console, escape(_cut(each.text) or "(nothing)"), head=" " * HEAD, fold=True)


def _tell_pair(pair: "ToldPair", console: Console, *, texts: bool) -> None:
    outcome = {"accepted": f"[{GOOD}]accepted[/]", "quarantined": f"[{BAD}]quarantined[/]"}.get(pair.outcome)
    broken = f": {_words(pair.broken)}" if pair.broken else ""
    say(console, f"{outcome or 'what validation said is not here'}{escape(broken)}", head=f"{pair.id}  ")
    if pair.fault:
        say(console, escape(pair.fault), head=" " * HEAD)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "score", "tokens", "reference log p"):
        table.add_column(heading, header_style="dim", justify="right" if heading else "left")
    for side in ("chosen", "rejected"):
        tokens = getattr(pair, f"{side}_tokens")
        score, log_p = _number(getattr(pair, f"{side}_score"), 3), _number(getattr(pair, f"reference_{side}"))
        table.add_row(f"    {side}", score, NONE if tokens is None else f"{tokens:,}", log_p)
    console.print(table)
    how = f"{pair.strategy.replace('_', ' ')}, " if pair.strategy else ""
    gap = "no gap: its sides have no scores" if pair.gap is None else f"gap {plain(pair.gap, 3)}"
    say(console, f"{how}{gap}", head=" " * HEAD)
    if texts:
        for side in ("chosen", "rejected"):
            say(console, escape(_cut(getattr(pair, side))), head=f"    {side:<10}", fold=True)


def tell_apart(found: "Explained", console: Console) -> None:
    """Print the pairs that validation set apart, each with its reasons and both texts."""
    total = found.apart_total
    if not total:
        say(console, "Validation set no pair apart." if total == 0 else "The record does not say what was set apart.")
        return
    if not found.apart:
        say(console, f"{total:,} pairs were set apart. {escape(found.missing)}")
        return
    say(console, f"[bold]{escape(found.title)}[/]: {len(found.apart):,} of {total:,} pairs that validation set apart")
    for pair in found.apart:
        console.print()
        say(console, f"[bold {BAD}]{escape(_words(pair.broken))}[/]", head=f"{pair.id}  ")
        gap = "" if pair.gap is None else f", gap {plain(pair.gap, 3)}"
        say(console, f"{pair.chosen_tokens} and {pair.rejected_tokens} tokens{gap}", head=" " * HEAD)
        for side in ("chosen", "rejected"):
            text = getattr(pair, side).removeprefix(pair.prompt)
            say(console, escape(_cut(text) or "(nothing)"), head=f"    {side:<10}", fold=True)


def _number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else signed(value, digits)


def _words(names: Iterable[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _cut(text: str) -> str:
    from alignment.judging.card import CONTROL_SIGNS

    shown = " ".join(text.split()).translate(CONTROL_SIGNS)
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 1]}…"
