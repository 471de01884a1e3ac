"""The command line: `run`, `retrain`, `sweep` and `plan` here, and the operated system's commands from `operate`."""

import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EISDIR
from importlib.metadata import version
from json import dumps
from os import strerror
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import uuid4

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.markup import escape

from alignment.config import AlignConfig, build_grid, load_config
from alignment.errors import REFUSED, InputError, PlumblineError, StoreError
from alignment.stages.store import write_json
from flows.cli import operate
from flows.cli.console import make_console, quieten
from flows.cli.flags import Flags, overrides
from flows.cli.output import make_steady
from tasks.addresses import shown
from tasks.home import home, prepare_environment, store, tracking_uri

if TYPE_CHECKING:
    from flows.align import AlignResult

INTERRUPTED = 130
CONFIGS = Path(__file__).parents[1] / "configs"
QUICKSTART, ROUND = CONFIGS / "quickstart.yaml", CONFIGS / "quickstart_retrain.yaml"

app = App(
    name="plumbline",
    help="Aligns a causal language model to a reward model, judges the result, and registers it if it deserves it.\n\n"
    "A [value] in the help of a flag is what holds where the config file says nothing.",
    version=version("plumbline"),
    suppress_keyboard_interrupt=False,  # `main` says how to go on
)

ConfigPath = Annotated[Path, Parameter(help="YAML file with the configuration [quickstart.yaml]", show_default=False)]
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
    _require_writable(json)
    console = _begin(config, wanted, debug)
    with _prefect(console):
        from flows.align import align

        result = align(**_groups(wanted))
    return _report(result, json, console)


@app.command
def retrain(
    *,
    flags: Flags = None,
    config: Annotated[
        Path, Parameter(help="YAML file with the configuration [quickstart_retrain.yaml]", show_default=False)
    ] = ROUND,
    json: Annotated[Path | None, Parameter(help="Also write the result to this file")] = None,
    debug: Debug = False,
) -> int:
    """One more round from the champion, on prompts that no round has used: exits as `run` does, 0 also if skipped."""
    wanted = load_config(config, overrides(flags))
    _require_writable(json)
    console = _begin(config, wanted, debug)
    with _prefect(console):
        from flows.align import AlignResult
        from flows.retrain import retrain as retrain_flow

        state: Any = retrain_flow(**_groups(wanted), return_state=True)
        if state.name == "Skipped":
            console.print(f"\n[bold]Skipped[/bold]: {escape(state.message or '')}", highlight=False, soft_wrap=True)
            return 0
        result: AlignResult = state.result()
    return _report(result, json, console)


@app.command
def sweep(
    *,
    flags: Flags = None,
    losses: Annotated[list[str] | None, Parameter(help="Losses to try [hinge sigmoid]")] = None,
    betas: Annotated[list[float] | None, Parameter(help="Values of beta to try [0.3 0.5]")] = None,
    learning_rates: Annotated[list[float] | None, Parameter(help="Learning rates to try [1e-4 3e-4]")] = None,
    config: ConfigPath = QUICKSTART,
    debug: Debug = False,
) -> int:
    """Try a grid over loss, beta and learning rate; the surest of those that pass becomes the challenger."""
    wanted = load_config(config, overrides(flags))
    grid = build_grid(losses=losses, betas=betas, learning_rates=learning_rates)
    console = _begin(config, wanted, debug)
    with _prefect(console):
        from flows.sweep import sweep as sweep_flow

        found = sweep_flow(**_groups(wanted), grid=grid)
    from flows.cli import terminal

    console.print()
    console.print(terminal.points_table(found.points))
    if found.best is None:
        console.print(f"\n[bold red]No point passed.[/]\nLook at it  {escape(found.where)}", highlight=False)
        return REFUSED
    return _report(found.best, None, console)


@app.command
def plan(*, flags: Flags = None, config: ConfigPath = QUICKSTART, debug: Debug = False) -> int:
    """Show the stages, which of them the store already has, and the counts, without computing anything.

    A registered model is brought in, as a run would do first: its content decides what is cached.
    """
    wanted = load_config(config, overrides(flags))
    quieten(debug)
    from flows.cli.planning import plan_table
    from tasks.registry import runs
    from tasks.registry.versions import with_local_models

    runs.configure(tracking_uri(), home() / "artifacts")
    local, _ = with_local_models(wanted, home() / "models")
    make_console().print(plan_table(local, store()))
    return 0


for command in (
    *(operate.up, operate.status, operate.down, operate.bootstrap),
    *(operate.promote, operate.rollback, operate.smoke, operate.receiver, operate.data_arrived),
):
    app.command(command)


def summary(result: "AlignResult") -> dict[str, Any]:
    """The result as `--json` writes it; a figure that is not finite is a text, since JSON has no number for it."""
    report, judged = result.report.model_dump(mode="json"), result.judgement.model_dump(mode="json")
    return {
        "run_id": result.run_id,
        "experiment": result.experiment,
        "model": result.model,
        "registered": result.registered,
        "pairs": result.pairs,
        **{name: report[name] for name in ("base", "aligned", "delta", "winners_mean")},
        "gates": [
            {"name": gate.name, "value": dumped["value"], "bound": gate.bound, "passed": gate.passed}
            for gate, dumped in zip(result.judgement.gates, judged["gates"], strict=True)
        ],
        "verdict": result.judgement.verdict,
        "sentence": result.judgement.sentence,
        "seconds": result.seconds,
        "cached": result.cached,
    }


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point: every intended error is one line, and its exit code says whose it is."""
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
        code = _complain(
            "interrupted; what is finished stays in the store, run again to go on", INTERRUPTED, debug=False
        )
    except Exception as error:  # noqa: BLE001 - the last resort: one line, not a traceback
        text = f"unexpected {type(error).__name__}: {' '.join(str(error).split())} (--debug shows more)"
        code = _complain(text, PlumblineError.exit_code, debug)
    sys.exit(code)


def _begin(config: Path, wanted: AlignConfig, debug: bool) -> Console:
    quieten(debug)
    console = make_console()
    console.print(f"[bold]plumbline[/bold] {escape(config.stem)}, seed {wanted.seed}\n", highlight=False)
    return console


@contextmanager
def _prefect(console: Console) -> Iterator[None]:
    """Prefect for a flow, that of `plumbline up` where it is up, else one of its own; the stages show in the terminal.

    What is slow to import is imported while the server starts.
    """
    from flows.stack.presence import join
    from flows.stack.server import prefect_server

    join(home())
    with prefect_server(home()) as server_is_ready:
        from flows.cli import terminal
        from tasks.registry import runs

        with terminal.stage_lines(console):
            runs.configure(tracking_uri(), home() / "artifacts")
            runs.check()
            server_is_ready()
            yield


def _groups(wanted: AlignConfig) -> dict[str, Any]:
    return {name: getattr(wanted, name) for name in AlignConfig.model_fields}


def _require_writable(json: Path | None) -> None:
    """Refuse at once what could not be written once everything is computed."""
    if json is None:
        return
    folder = json.absolute().parent
    if not folder.is_dir():
        raise InputError(f"--json {json}: the folder {folder} does not exist; create it first")
    with _told(json, InputError):
        if _is_special(json):
            return
        if json.is_dir():
            raise IsADirectoryError(EISDIR, strerror(EISDIR))
        draft = json.with_name(f".{json.name}.{uuid4().hex[:8]}")
        draft.touch()
        draft.unlink()


def _report(result: "AlignResult", json: Path | None, console: Console) -> int:
    _show(result, console)
    if json is not None:
        with _told(json, StoreError):
            if _is_special(json):
                json.write_text(f"{dumps(summary(result), default=str)}\n", encoding="utf-8", errors="backslashreplace")
            else:
                write_json(json, summary(result))
    return 0 if result.judgement.verdict == "pass" else REFUSED


def _is_special(path: Path) -> bool:
    """A device or a pipe, which is written to and not replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _told(json: Path, kind: type[PlumblineError]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise kind(f"--json {json}: {error.strerror}; name a file that you may write") from error


def _show(result: "AlignResult", console: Console) -> None:
    from flows.cli import terminal

    console.print()
    console.print(terminal.result_table(result))
    console.print(terminal.gates_table(result))
    colour = "green" if result.judgement.verdict == "pass" else "red"
    console.print(f"\n[bold {colour}]{escape(result.judgement.sentence)}[/]\n", highlight=False, soft_wrap=True)
    lines = {"Look at it": result.where, "Next": _next_command(result)}
    if result.registered:
        lines = {"Earlier" if result.model is None else "Registered": result.registered} | lines
    for heading, text in lines.items():
        console.print(f"{heading:<11} {escape(text)}", highlight=False, soft_wrap=True)


def _next_command(result: "AlignResult") -> str:
    if result.model is None:
        refused = {gate.name for gate in result.judgement.gates if not gate.passed}
        if refused <= {"reward_gain", "win_rate"}:
            return "read why above, then try more --prompts.count and --dpo.steps, or a better reward model"
        return "read why above, then try a lower --dpo.learning-rate or a higher --dpo.beta"
    model, aliases = result.model, result.model["aliases"]
    address = f"models:/{model['name']}@{aliases[0]}" if aliases else model["uri"]
    # MLflow starts uvicorn by its name, so the environment has to be on the path
    return (
        f"PATH={quote(str(Path(sys.executable).parent))}:$PATH MLFLOW_TRACKING_URI={quote(tracking_uri())} "
        f"mlflow models serve -m {quote(address)} --env-manager local --port 5001"
    )


def _complain(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    Console(stderr=True).print(
        f"[bold red]plumbline:[/bold red] {escape(shown(message))}", highlight=False, soft_wrap=True
    )
    return code


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
