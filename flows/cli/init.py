"""The command that writes a first configuration: init."""

import re
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from alignment.data.guessing import HOLDS, Guess, Holds, guess
from alignment.errors import InputError, PlumblineError
from alignment.rewards.function_file import function_file, require_function
from flows.cli.console import make_console
from flows.starting import Answers, Size, default_reward, draft

REWARDS = "`train` (from labels), a reward model (folder or hub name), a function (FILE.py:NAME), `judge`, or `none`"


def init(
    file: Annotated[
        Path | None, Parameter(help="File to write; it must not exist [NAME.yaml]", show_default=False)
    ] = None,
    /,
    *,
    model: Annotated[
        str,
        Parameter(
            help="Model to align: a folder, a hub name, models:/name@alias, or train [asked]", show_default=False
        ),
    ] = "",
    data: Annotated[
        str, Parameter(help="Data: a file, a folder, a hub name, or grammar [asked]", show_default=False)
    ] = "",
    holds: Annotated[Holds | None, Parameter(help="What the data holds [guessed from its first rows]")] = None,
    reward: Annotated[str, Parameter(help=f"{REWARDS.replace('`', '')} [asked]", show_default=False)] = "",
    size: Annotated[Size | None, Parameter(help="Machine to choose the sizes for [asked]")] = None,
    name: Annotated[str, Parameter(help="Name of the registered model [asked]", show_default=False)] = "",
    judge_model: Annotated[
        str, Parameter(help="Name of the judge at its endpoint, for the reward judge [asked]", show_default=False)
    ] = "",
    judge_url: Annotated[str, Parameter(help="Base URL of the judge's endpoint")] = "http://127.0.0.1:8000/v1",
    yes: Annotated[
        bool, Parameter(help="Take the default for what is not given", negative=(), show_default=False)
    ] = False,
) -> int:
    """Write a first configuration, with comments.

    It asks for model, data, reward, machine and name, or takes flags.
    """
    if file is not None:
        _require_new(file)
    if not yes and not sys.stdin.isatty() and not (model and data and reward and size and name):
        raise InputError(
            "init asks five questions, and there is no terminal to ask in: give --model, --data, --reward, --size and "
            "--name, or --yes for the defaults"
        )
    console = make_console()
    ask = Asking(console, quiet=yes or not sys.stdin.isatty())
    model = model or ask("Model to align (a folder, a hub name, models:/name@alias, or train)", "train")
    data = data or ask("Data (a file, a folder, a hub name, or grammar)", "grammar")
    found = _held(data, holds, ask)
    reward = reward or ask(f"Reward: {REWARDS}", default_reward(found))
    if reward == "judge" and not judge_model:
        judge_model = ask("Name of the judge at its endpoint", "")
        judge_url = ask("Base URL of its endpoint", judge_url)
    machine: Size = size or ask.size()
    name = name or ask("Name of the registered model", default_name(data))
    target = file or Path(f"{name}.yaml")
    _require_new(target)
    if function_file(reward):
        require_function(reward)
    text = draft(Answers(model, data, found, reward, machine, name, judge_model, judge_url))
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise InputError(f"{target}: {error.strerror}; name a file that you may write") from error
    console.print(f"Wrote {target}. Look at it, then:", highlight=False, markup=False)
    for command in ("check", "plan", "run") if found.holds == "pairs" else ("plan", "run"):
        console.print(f"  plumbline {command} --config {target}", highlight=False, markup=False, soft_wrap=True)
    return 0


class Asking:
    """Asks in a terminal, or takes the defaults."""

    def __init__(self, console: Console, quiet: bool) -> None:
        """Take the defaults if `quiet`."""
        self.console = console
        self.quiet = quiet

    def __call__(self, question: str, default: str, choices: list[str] | None = None) -> str:
        """The answer; Enter gives the default, which may be empty."""
        from rich.prompt import Prompt

        if self.quiet:
            return default
        shown: Any = {"default": default} if default else {}
        return str(Prompt.ask(escape(question), console=self.console, choices=choices, **shown)).strip()

    def size(self) -> Size:
        """CPU or GPU, which is the default where there is one."""
        default = "gpu" if shutil.which("nvidia-smi") else "cpu"
        return "gpu" if self("Machine to choose the sizes for", default, ["cpu", "gpu"]) == "gpu" else "cpu"


def default_name(data: str) -> str:
    """A name for the registered model after the data."""
    if data == "grammar":
        return "my-model"
    slug = re.sub(r"[^a-z0-9]+", "-", Path(data.rstrip("/*")).stem.lower()).strip("-")
    return f"{slug[:40] or 'my'}-aligned"


def _held(data: str, holds: Holds | None, ask: Asking) -> Guess:
    """What the data holds: as told, else as guessed from its first rows and confirmed."""
    try:
        found = guess(data)
    except PlumblineError:
        if not holds:
            raise
        found = None
    answer = holds or ask(f"What {data} holds", found.holds if found else "prompts", list(HOLDS))
    if found is not None and found.holds == answer:
        return found
    told = next(each for each in HOLDS if each == answer)
    usual = {"texts": "text", "prompts": "prompt", "chats": "messages", "pairs": "chosen"}[told]
    return Guess(told, found.text_column if found and told in {"texts", "prompts"} else usual)


def _require_new(file: Path) -> None:
    if file.exists() or file.is_symlink():
        raise InputError(f"{file}: is there already; name another file, or remove it")
