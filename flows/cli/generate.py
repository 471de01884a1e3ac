"""The command that has a model write: generate."""

import sys
from collections.abc import Iterator
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from alignment.config import Precision
from alignment.errors import PlumblineError
from flows.cli.console import quieten

if TYPE_CHECKING:
    from alignment.models import Loaded

Model = Annotated[
    str,
    Parameter(
        help="Registered name (its champion, else its challenger), name@alias, models:/name/3, a folder, or a hub name"
    ),
]


def generate(
    model: Model,
    /,
    *prompts: Annotated[str, Parameter(help="Prompts; none: the lines of standard input, or what you type")],
    system: Annotated[str, Parameter(help="System prompt, for a chat template", show_default=False)] = "",
    raw: Annotated[
        bool, Parameter(help="Go on with the prompt as it is: no chat template", negative=(), show_default=False)
    ] = False,
    max_new_tokens: Annotated[int, Parameter(help="Longest answer in tokens")] = 256,
    temperature: Annotated[
        float | None, Parameter(help="0 takes the likeliest token each time [the model's own]", show_default=False)
    ] = None,
    stop: Annotated[
        list[str] | None, Parameter(help="Text that ends an answer; may be given again", negative=())
    ] = None,
    seed: Annotated[
        int | None, Parameter(help="Draw prompt number n, from 0, with seed + n [drawn]", show_default=False)
    ] = None,
    precision: Annotated[Precision, Parameter(help="Precision of the weights")] = "fp32",
    json: Annotated[
        bool, Parameter(help="Print a JSON object a prompt, a line each", negative=(), show_default=False)
    ] = False,
    debug: Annotated[bool, Parameter(help="Show the traceback of an error", negative=(), show_default=False)] = False,
) -> int:
    """Have a model answer prompts, and print the answers alone; with a chat template a prompt is the user's turn.

    In a terminal without prompts it asks for them: a chat goes on until an empty line, and Ctrl-D ends it.
    """
    quieten(debug)
    from alignment.generation import Settings
    from flows.library import generate as answer
    from flows.library import load

    stops = tuple(stop or ())
    Settings(max_new_tokens, temperature, stops, seed)  # refused before the model is loaded
    loaded = load(model, precision=precision)
    options: dict[str, Any] = {"system": system, "raw": raw, "max_new_tokens": max_new_tokens}
    options |= {"temperature": temperature, "stop": stops}

    def seeded(number: int) -> dict[str, Any]:
        return options | {"seed": None if seed is None else seed + number}

    if not prompts and sys.stdin.isatty():
        return _converse(loaded, seeded)
    for number, prompt in enumerate(prompts or _lines()):
        if json:
            (text,) = answer(loaded, [prompt], **seeded(number))
            _say(f"{dumps({'prompt': prompt, 'completion': text}, ensure_ascii=False)}\n")
        else:
            answer(loaded, [prompt], on_text=_say, **seeded(number))
            _say("\n")
    return 0


def _converse(loaded: "Loaded", seeded: Any) -> int:
    """Ask in the terminal; a model with a chat template sees the turns before."""
    import readline  # noqa: F401 - lets what is typed be edited
    from itertools import count

    from alignment.generation import has_template
    from flows.library import generate as answer

    chat = has_template(loaded) and not seeded(0)["raw"]
    said: list[dict[str, str]] = []
    errors = Console(stderr=True, emoji=False)
    for number in count():
        try:
            line = input("> ")
        except EOFError:
            _say("\n")
            return 0
        if not line.strip():
            said.clear()
            continue
        asked = [*said, {"role": "user", "content": line}]
        try:
            (text,) = answer(loaded, [asked if chat else line], on_text=_say, **seeded(number))
        except PlumblineError as error:
            errors.print(f"{error}; an empty line begins anew", highlight=False, markup=False, soft_wrap=True)
            continue
        _say("\n")
        if chat:
            said = [*asked, {"role": "assistant", "content": text}]
    return 0


def _lines() -> Iterator[str]:
    """The lines of standard input that are not blank."""
    return (line.rstrip("\r\n") for line in sys.stdin if line.strip())


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
