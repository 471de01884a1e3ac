"""The entry point of `plumbline`: every command by its name, and the exit code and one line for each error."""

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, Group, UnusedCliTokensError
from rich.markup import escape

from alignment.errors import ConfigError, InputError, PlumblineError
from flows.cli import (
    check,
    compare,
    explain,
    frontier,
    generate,
    importing,
    init,
    models,
    pipeline,
    ratings,
    registry,
    report,
    serve,
    stack,
    store,
)
from flows.cli.console import BAD, make_console, say
from flows.cli.help import Help
from flows.cli.output import make_steady
from tasks.addresses import shown
from tasks.home import prepare_environment

INTERRUPTED = 130

app = App(
    name="plumbline",
    help="Aligns a causal language model to a reward model, judges the result, and registers it if every gate passes.",
    version=version("plumbline"),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)

COMMANDS: dict[str, dict[str, Callable[..., int] | App]] = {
    "Make a model": {
        "init": init.init,
        "check": check.check,
        "plan": pipeline.plan,
        "run": pipeline.run,
        "sweep": pipeline.sweep,
        "frontier": frontier.frontier,
        "retrain": pipeline.retrain,
    },
    "Look at models and use them": {
        "models": models.models,
        "why": report.why,
        "report": report.report,
        "explain": explain.explain,
        "compare": compare.compare,
        "ratings": ratings.ratings,
        "generate": generate.generate,
        "serve": serve.serve,
        "export": models.export,
        "import": importing.app,
    },
    "Decide which one is used": {
        "promote": registry.promote_command,
        "rollback": registry.rollback_command,
        "smoke": registry.smoke_command,
    },
    "Look after what runs keep": {
        "store": store.app,
    },
    "Run the servers": {
        "up": stack.up,
        "status": stack.status,
        "down": stack.down,
        "bootstrap": stack.bootstrap,
        "receiver": stack.receiver,
        "data-arrived": stack.data_arrived,
    },
}
app["--help"].group = app["--version"].group = Group("Options", sort_key=len(COMMANDS))
for number, (title, commands) in enumerate(COMMANDS.items()):
    group = Group(title, sort_key=number)
    for place, (name, command) in enumerate(commands.items()):
        app.command(command, name=name)
        app[name].group = group
        app[name].sort_key = place


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command; every intended error is one line, and the exit code says whether input or program is at fault."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    make_steady()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        prepare_environment()
        app.help_formatter = Help(arguments)
        app.console = make_console()
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0
    except ConfigError as error:
        code = _complain(str(error), error.exit_code, debug, [fault.message for fault in error.faults])
    except PlumblineError as error:
        code = _complain(str(error), error.exit_code, debug)
    except UnusedCliTokensError as error:
        text = f"{' '.join(error.unused_tokens or ())}: not expected there; --help says what the command takes"
        code = _complain(text, InputError.exit_code, debug)
    except CycloptsError as error:
        code = _complain(" ".join(str(error).split()), InputError.exit_code, debug)
    except KeyboardInterrupt:
        code = _complain("interrupted; finished stages stay in the store, run again to go on", INTERRUPTED, debug=False)
    except Exception as error:  # noqa: BLE001 - the last resort: one line, not a traceback
        text = f"unexpected {type(error).__name__}: {' '.join(str(error).split())} (--debug shows more)"
        code = _complain(text, PlumblineError.exit_code, debug)
    sys.exit(code)


def _complain(message: str, code: int, debug: bool, faults: Sequence[str] = ()) -> int:
    """One line, which scripts may read; in a terminal it ends between words, and each of several faults has its own."""
    if debug:
        traceback.print_exc()
    console = make_console(stderr=True)
    head = f"[bold {BAD}]plumbline:[/] "
    if console.is_terminal and code == INTERRUPTED:
        console.print()  # the terminal wrote ^C into the line at work
    if not console.is_terminal:
        console.print(f"{head}{escape(shown(message))}", soft_wrap=True)
    elif len(faults) > 1:
        say(console, f"{len(faults)} things are wrong:", head=head)
        for fault in faults:
            say(console, escape(shown(fault)), head="  - ")
    else:
        say(console, escape(shown(message)), head=head)
    return code


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
