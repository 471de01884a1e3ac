"""The help of the commands: of a configuration the usual fields and the groups, and a group whole when it is named."""

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions
from rich.markup import escape

from alignment.config import AlignConfig, flatten
from flows.cli.console import say
from flows.cli.flags import CONFIGURATION, flag, groups

HELP = ("--help", "-h")
ALL = "all"
RUNS = (
    *("seed", "data.path", "data.rows", "base.model", "reward.kind", "reward.model", "prompts.source", "prompts.count"),
    *("sampling.total_tokens", "pairs.source", "dpo.loss", "dpo.beta", "dpo.learning_rate", "dpo.steps"),
    "registry.model_name",
)
USUAL = {
    "check": (
        *("data.text_column", "data.columns", "base.model", "prompts.source", "prompts.chat_template"),
        *("sampling.total_tokens", "validation.min_pairs", "validation.max_quarantined"),
    )
}
"""The fields that are mostly set, of commands that do not run the pipeline; of the others they are `RUNS`."""
NAMES = range(12, 33)  # columns of the names; a longer one has a line of its own


class Help:
    """How cyclopts prints a panel of the help; of the configuration the groups that were named, or the usual fields."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """`arguments` are the command line's."""
        self.topics, self.unknown = topics(arguments)
        self.command = arguments[0] if arguments else ""
        self.usual = USUAL.get(self.command, RUNS)

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:  # noqa: ARG002
        """Print one panel."""
        if panel.title == CONFIGURATION:
            self._configuration(console, [entry.copy(metavar=None) for entry in panel.entries])
        elif panel.entries:
            show(console, str(panel.title), panel.entries)

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:  # noqa: ARG002
        """Print how the command is called."""
        say(console, escape(str(usage).strip()), head="Usage: ")

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:  # noqa: ARG002
        """Print what the command does."""
        for paragraph in re.split(r"\n\s*\n", _text(description)):
            console.print()
            say(console, escape(" ".join(paragraph.split())))

    def _instead(self, word: str) -> str:
        """What to look at in place of a word that names the command itself, whose own flags stand first."""
        return f" The flags of `{word}` itself are under Parameters, above." if word == self.command else ""

    def _configuration(self, console: Console, entries: Sequence[HelpEntry]) -> None:
        by_group: dict[str, list[HelpEntry]] = {}
        for entry in entries:
            by_group.setdefault(_group(entry), []).append(entry)
        if not self.topics:
            usual = {flag(field) for field in self.usual}
            if not self.unknown:
                of_them = [each for each in entries if each.names[0] in usual]
                show(console, f"{CONFIGURATION}: the usual fields", of_them)
            console.print("\n[bold]Groups of the configuration[/bold], in the order of the stages")
            _lines(console, ((name, doc.replace("`", "")) for name, doc in groups().items() if "." not in name))
            console.print()
            say(console, f"`--help dpo` lists the fields of a group, `--help {ALL}` those of all.")
        for name in by_group:
            if any(topic in (ALL, name) or name.startswith(f"{topic}.") for topic in self.topics):
                show(console, name or CONFIGURATION, by_group[name])
        for word in self.unknown:
            console.print()
            say(console, escape(f"The configuration has no group and no field {word!r}.{self._instead(word)}"))


def topics(arguments: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The groups of the configuration that the words after `--help` name, or `all`; and the words that name nothing.

    A field names its group, which is "" for a field of none.
    """
    where = min((arguments.index(name) for name in HELP if name in arguments), default=len(arguments))
    after = arguments[where + 1 :] if where else arguments[2:]  # `plumbline --help run` is `plumbline run --help`
    words = list(takewhile(lambda word: not word.startswith("-"), after))
    known = {name: name for name in (ALL, *groups())}
    known |= {field: field.rpartition(".")[0] for field in flatten(AlignConfig())}
    found = {word: known.get(word.replace("-", "_")) for word in words}
    named = dict.fromkeys(group for group in found.values() if group is not None)
    return tuple(named), tuple(word for word, group in found.items() if group is None)


def show(console: Console, title: str, entries: Iterable[HelpEntry]) -> None:
    """A heading, and below it each entry's name and text."""
    console.print(f"\n[bold]{escape(title)}[/bold]")
    _lines(console, ((" ".join(entry.display_labels_with_metavar), _described(entry)) for entry in entries))


def _lines(console: Console, lines: Iterable[tuple[str, str]]) -> None:
    listed = list(lines)
    width = min(max((len(name) for name, _ in listed), default=0), NAMES.stop - 1)
    width = max(width, NAMES.start)
    for name, text in listed:
        if len(name) > width:
            say(console, escape(name), head="  ")
            name = ""
        say(console, escape(text), head=f"  {escape(f'{name:<{width}}')}  ")


def _group(entry: HelpEntry) -> str:
    """The group of a field by the name of its flag."""
    return entry.names[0].removeprefix("--").replace("-", "_").rpartition(".")[0]


def _described(entry: HelpEntry) -> str:
    """What an entry says, with its choices and default where it has any."""
    told = [f"one of {', '.join(entry.choices)}"] if entry.choices else []
    told += [f"default {entry.default}"] if entry.default not in (None, "", "False") else []
    told += ["required"] if entry.required and not entry.positional_label else []
    return " ".join([_text(entry.description), *([f"[{'; '.join(told)}]"] if told else [])])


def _text(described: Any) -> str:
    return str(getattr(described, "primary_renderable", described) or "").strip()
