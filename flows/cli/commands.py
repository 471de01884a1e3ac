"""The entry point of `plumbline`: every command by its name, and the exit code and one line for each error."""

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from cyclopts import App, CycloptsError
from rich.console import Console
from rich.markup import escape

from alignment.errors import InputError, PlumblineError
from flows.cli import check, generate, importing, init, models, pipeline, registry, stack
from flows.cli.output import make_steady
from tasks.addresses import shown
from tasks.home import prepare_environment

INTERRUPTED = 130

app = App(
    name="plumbline",
    help="Aligns a causal language model to a reward model, judges the result, and registers it if every gate passes."
    "\n\nA [value] in the help of a flag is the default, for what the config file does not set.",
    version=version("plumbline"),
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)

COMMANDS: dict[str, Callable[..., int]] = {
    "run": pipeline.run,
    "retrain": pipeline.retrain,
    "sweep": pipeline.sweep,
    "plan": pipeline.plan,
    "up": stack.up,
    "status": stack.status,
    "down": stack.down,
    "bootstrap": stack.bootstrap,
    "receiver": stack.receiver,
    "data-arrived": stack.data_arrived,
    "promote": registry.promote_command,
    "rollback": registry.rollback_command,
    "smoke": registry.smoke_command,
    "init": init.init,
    "models": models.models,
    "generate": generate.generate,
    "export": models.export,
    "check": check.check,
}
for name, command in COMMANDS.items():
    app.command(command, name=name)
app.command(importing.app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command; every intended error is one line, and the exit code says whether input or program is at fault."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    make_steady()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        prepare_environment()
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0
    except PlumblineError as error:
        code = _complain(str(error), error.exit_code, debug)
    except CycloptsError as error:
        code = _complain(" ".join(str(error).split()), InputError.exit_code, debug)
    except KeyboardInterrupt:
        code = _complain("interrupted; finished stages stay in the store, run again to go on", INTERRUPTED, debug=False)
    except Exception as error:  # noqa: BLE001 - the last resort: one line, not a traceback
        text = f"unexpected {type(error).__name__}: {' '.join(str(error).split())} (--debug shows more)"
        code = _complain(text, PlumblineError.exit_code, debug)
    sys.exit(code)


def _complain(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    Console(stderr=True, emoji=False).print(
        f"[bold red]plumbline:[/bold red] {escape(shown(message))}", highlight=False, soft_wrap=True
    )
    return code


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
