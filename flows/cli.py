"""The command line: `plumbline run` and `plumbline plan`."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from alignment.config import load_config
from alignment.errors import InputError, PlumblineError
from flows.flags import Flags, overrides

REFUSED = 3
QUICKSTART = Path(__file__).parent / "configs" / "quickstart.yaml"

app = App(
    name="plumbline",
    help="Aligns a causal language model to a reward model, judges the result, and registers it if it deserves it.",
    version_flags=["--version"],
)

ConfigPath = Annotated[Path, Parameter(help="YAML file with the configuration")]
Debug = Annotated[bool, Parameter(help="Show the traceback of an error", negative=())]


@app.command
def run(
    *,
    flags: Flags = None,
    config: ConfigPath = QUICKSTART,
    json: Annotated[Path | None, Parameter(help="Also write the result to this file")] = None,
    debug: Debug = False,
) -> int:
    """Run the whole pipeline: exit 0 registered, 3 a gate refused, 2 bad config or input, 1 anything unexpected."""
    wanted = load_config(config, overrides(flags))
    if json is not None and not json.absolute().parent.is_dir():
        raise InputError(f"--json {json}: the folder {json.absolute().parent} does not exist; create it first")
    _quieten(debug)
    console = Console()
    console.print(f"[bold]plumbline[/bold] {config.stem}, seed {wanted.seed}\n", highlight=False)

    from alignment.store import write_json
    from flows import terminal
    from flows.align import align

    with terminal.stage_lines(console):
        result = align(**{name: getattr(wanted, name) for name in type(wanted).model_fields})
    if json is not None:
        write_json(json, summary(result))
    console.print()
    console.print(terminal.result_table(result))
    console.print(terminal.gates_table(result))
    passed = result.judgement.verdict == "pass"
    console.print(f"\n[bold {'green' if passed else 'red'}]{result.judgement.sentence}[/]\n", highlight=False)
    if result.model is not None:
        aliases = ", ".join(result.model["aliases"])
        console.print(f"Registered  {result.model['name']} version {result.model['version']} ({aliases})", highlight=False)
    console.print(f"Look at it  {result.where}", highlight=False, soft_wrap=True)
    console.print(f"Next        {_next_command(result)}", highlight=False, soft_wrap=True)
    return 0 if passed else REFUSED


@app.command
def plan(*, flags: Flags = None, config: ConfigPath = QUICKSTART, debug: Debug = False) -> int:
    """Show the stages, which of them the store already has, and the counts, without computing anything."""
    wanted = load_config(config, overrides(flags))
    _quieten(debug)
    from flows.planning import plan_table
    from tasks.home import store

    Console().print(plan_table(wanted, store()))
    return 0


def summary(result: Any) -> dict[str, Any]:
    """The result as `--json` writes it."""
    delta = result.report.delta.model_dump(mode="json")
    return {
        "run_id": result.run_id,
        "experiment": result.experiment,
        "model": result.model,
        "pairs": result.pairs,
        "base": result.report.base.model_dump(mode="json"),
        "aligned": result.report.aligned.model_dump(mode="json"),
        "delta": delta,
        "winners_mean": result.report.winners_mean,
        "gates": [
            {"name": gate.name, "value": gate.value, "bound": gate.bound, "passed": gate.passed}
            for gate in result.judgement.gates
        ],
        "verdict": result.judgement.verdict,
        "sentence": result.judgement.sentence,
        "seconds": result.seconds,
        "cached": result.cached,
    }


def main() -> None:
    """Entry point: every intended error is one line, and its exit code says whose it is."""
    from tasks.home import prepare_environment

    debug = "--debug" in sys.argv
    try:
        prepare_environment()
        code = app(exit_on_error=False, print_error=False, result_action="return_value")
    except PlumblineError as error:
        code = _complain(str(error), error.exit_code, debug)
    except CycloptsError as error:
        code = _complain(" ".join(str(error).split()), InputError.exit_code, debug)
    except KeyboardInterrupt:
        code = _complain("interrupted; what is finished stays in the store, run again to go on", 130, debug=False)
    except Exception as error:  # noqa: BLE001 - the last resort: one line, not a traceback
        code = _complain(f"unexpected {type(error).__name__}: {' '.join(str(error).split())} (--debug shows more)", 1, debug)
    sys.exit(code or 0)


def _complain(message: str, code: int, debug: bool) -> int:
    if debug:
        raise
    Console(stderr=True).print(f"[bold red]plumbline:[/bold red] {message}", highlight=False, soft_wrap=True)
    return code


def _next_command(result: Any) -> str:
    if result.model is None:
        return "read why above, then try a lower --dpo.learning-rate or a higher --dpo.beta"
    return f"mlflow models serve -m models:/{result.model['name']}@{result.model['aliases'][0]} --env-manager local"


def _quieten(debug: bool) -> None:
    """Keep the libraries' chatter out of the terminal; Prefect's UI and MLflow still get theirs."""
    if debug:
        return
    warnings.simplefilter("ignore")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
