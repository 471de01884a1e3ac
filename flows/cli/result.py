"""The result of a run as the terminal shows it and as `--json` writes it, and the command that comes next."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EISDIR
from json import dumps
from os import strerror
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rich.console import Console
from rich.markup import escape

from alignment.errors import REFUSED, InputError, PlumblineError, StoreError
from alignment.stages.store import write_json
from tasks.home import tracking_uri

if TYPE_CHECKING:
    from flows.align import AlignResult


def report(result: "AlignResult", json: Path | None, console: Console) -> int:
    """Show the result, write it to `json` if given, and return the exit code: 0 passed, 3 refused by a gate."""
    show(result, console)
    if json is not None:
        with _json_errors(json, StoreError):
            if _is_special(json):
                json.write_text(f"{dumps(summary(result), default=str)}\n", encoding="utf-8", errors="backslashreplace")
            else:
                write_json(json, summary(result))
    return 0 if result.judgement.verdict == "pass" else REFUSED


def show(result: "AlignResult", console: Console) -> None:
    """Print the evaluation, the gates, some texts, the verdict, where to look at the run, and what to do next."""
    from flows.cli import terminal
    from tasks.evaluation import read_samples

    console.print()
    console.print(terminal.result_table(result))
    console.print(terminal.gates_table(result))
    if "report" in result.folders:
        console.print(terminal.samples_table(read_samples(Path(result.folders["report"]))))
    colour = "green" if result.judgement.verdict == "pass" else "red"
    console.print(f"\n[bold {colour}]{escape(result.judgement.sentence)}[/]\n", highlight=False, soft_wrap=True)
    lines = {"Look at it": result.where}
    if result.version is not None:
        lines["Ask it"] = f"plumbline generate {quote(result.version)} 'a prompt'"
    lines["Next"] = next_command(result)
    if result.registered:
        lines = {"Earlier" if result.model is None else "Registered": result.registered} | lines
    for heading, text in lines.items():
        console.print(f"{heading:<11} {escape(text)}", highlight=False, soft_wrap=True)


def summary(result: "AlignResult") -> dict[str, Any]:
    """The result as `--json` writes it; a figure that is not finite is a text, since JSON has no number for it."""
    found, judged = result.report.model_dump(mode="json"), result.judgement.model_dump(mode="json")
    return {
        "run_id": result.run_id,
        "experiment": result.experiment,
        "model": result.model,
        "registered": result.registered,
        "pairs": result.pairs,
        **{name: found[name] for name in ("base", "aligned", "delta", "winners_mean", "preferences", "parts", "gold")},
        "gates": [
            {"name": gate.name, "value": dumped["value"], "bound": gate.bound, "passed": gate.passed}
            for gate, dumped in zip(result.judgement.gates, judged["gates"], strict=True)
        ],
        "not_applied": result.judgement.not_applied,
        "verdict": result.judgement.verdict,
        "sentence": result.judgement.sentence,
        "seconds": result.seconds,
        "cached": result.cached,
    }


def next_command(result: "AlignResult") -> str:
    """The shell command that serves the registered model, or advice on what to change where a gate refused it."""
    if result.model is None:
        refused = {gate.name for gate in result.judgement.gates if not gate.passed}
        if refused <= {"preference_accuracy"}:
            return "read why above, then try more pairs and --dpo.steps, or a higher --dpo.learning-rate"
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


def require_writable(json: Path | None) -> None:
    """Raise InputError before anything is computed if the result could not be written to this file."""
    if json is None:
        return
    folder = json.absolute().parent
    if not folder.is_dir():
        raise InputError(f"--json {json}: the folder {folder} does not exist; create it first")
    with _json_errors(json, InputError):
        if _is_special(json):
            return
        if json.is_dir():
            raise IsADirectoryError(EISDIR, strerror(EISDIR))
        draft = json.with_name(f".{json.name}.{uuid4().hex[:8]}")
        draft.touch()
        draft.unlink()


def _is_special(path: Path) -> bool:
    """A device or a pipe, which is written to and not replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _json_errors(json: Path, kind: type[PlumblineError]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise kind(f"--json {json}: {error.strerror}; name a file that you may write") from error
