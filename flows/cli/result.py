"""The result of a run as the terminal shows it and as `--json` writes it, and the commands that come next."""

import shutil
import sys
from collections.abc import Iterator, Mapping
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
from flows.cli.console import BAD, GOOD, say

if TYPE_CHECKING:
    from alignment.judging.report import EvalReport, Judgement
    from flows.align import AlignResult

TOLD = 4  # gates whose refusal is told in full
PROGRAMS = ("plumbline", "mlflow")
HEAD = 12  # columns of what stands before a text


def report(result: "AlignResult", json: Path | None, console: Console, full: bool = False) -> int:
    """Show the result, write it to `json` if given, and return the exit code: 0 passed, 3 refused by a gate."""
    if full:
        show_tables(result, console)
    show(result, console)
    if json is not None:
        with _json_errors(json, StoreError):
            if _is_special(json):
                json.write_text(f"{dumps(summary(result), default=str)}\n", encoding="utf-8", errors="backslashreplace")
            else:
                write_json(json, summary(result))
    return 0 if result.judgement.verdict == "pass" else REFUSED


def show(result: "AlignResult", console: Console) -> None:
    """Print the verdict and why, the few figures, where to look, and what to do next: at most 23 lines of 80 columns.

    Long paths and names may make it more.
    """
    console.print()
    show_verdict(result.judgement, result.report, console)
    console.print()
    lines = next_lines(result)
    if result.registered:
        lines = {"Earlier" if result.model is None else "Registered": result.registered} | lines
    show_lines(lines, console)


def show_verdict(judgement: "Judgement", report: "EvalReport", console: Console) -> None:
    """Print the verdict and why, and the few figures."""
    from alignment.judging.headline import headlines

    for heading, text in verdict_lines(judgement):
        say(console, text, head=f"{heading:<{HEAD}}{'' if heading else '- '}")
    console.print()
    figures = headlines(report)
    titles = max((len(each.title) for each in figures), default=0)
    say(console, f"Against the base, on {report.prompts:,} held-out prompts:")
    for each in figures:
        say(console, escape(each.text), head=f"{'':<{HEAD}}{each.title:<{titles}}  ")


def show_lines(lines: Mapping[str, str], console: Console) -> None:
    """Print texts, each after its heading; a command as it can be pasted here."""
    for heading, text in lines.items():
        say(console, escape(runnable(text)), head=f"{heading:<{HEAD}}")


def runnable(text: str) -> str:
    """A command, by its program's path where the shell does not find that by its name; any other text as it is."""
    program, _, rest = text.partition(" ")
    if program not in PROGRAMS or shutil.which(program):
        return text
    beside, here = Path(sys.executable).with_name(program), Path.cwd()
    return f"{quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))} {rest}"


def verdict_lines(judgement: "Judgement") -> list[tuple[str, str]]:
    """The verdict, with what each failed gate found, as headings and texts with markup."""
    from alignment.judging.gates import clause

    failed = [gate for gate in judgement.gates if not gate.passed]
    total = len(judgement.gates)
    left_out = [("", escape(text)) for text in _not_applied(judgement)]
    if not failed:
        passed = [("Passed", f"[bold {GOOD}]{escape(judgement.sentence)}[/]"), ("Gates", f"{total} gates passed.")]
        return passed + left_out
    told = f"Not registered: {len(failed)} of {total} gates refused it, {total - len(failed)} passed."
    lines = [("Refused", f"[bold {BAD}]{told}[/]")]
    lines += [("", f"[{BAD}]{escape(clause(gate))}[/]") for gate in failed[:TOLD]]
    if others := failed[TOLD:]:
        lines.append(("", f"[{BAD}]Also {', '.join(escape(gate.name) for gate in others)}.[/]"))
    return lines + left_out


def _not_applied(judgement: "Judgement") -> list[str]:
    """The gates that were not applied, a line for each reason."""
    names: dict[str, list[str]] = {}
    for name, why in judgement.not_applied.items():
        names.setdefault(why, []).append(name)
    return [f"not applied: {why} ({', '.join(found)})" for why, found in names.items()]


def show_tables(result: "AlignResult", console: Console) -> None:
    """Print every figure, every gate, and some texts of both models."""
    from flows.cli import terminal
    from tasks.evaluation import read_samples

    for table in (terminal.result_table(result.report), terminal.gates_table(result.judgement)):
        console.print()
        console.print(table)
    console.print()
    if "report" in result.folders:
        terminal.show_samples(read_samples(Path(result.folders["report"])), console)


def summary(result: "AlignResult") -> dict[str, Any]:
    """The result as `--json` writes it; a figure that is not finite is a text, since JSON has no number for it."""
    from alignment.judging.report import as_json

    found, judged = as_json(result.report), as_json(result.judgement)
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


def next_lines(result: "AlignResult") -> dict[str, str]:
    """Where to look at the run, and the commands that use the registered model, or what to change before the next."""
    subject = result.run_id if result.version is None else result.version
    lines = {"Look at it": result.where, "Report": f"plumbline report {quote(subject)}"}
    if result.version is None:
        return lines | {"Next": advice(result.judgement)}
    version = quote(result.version)
    return lines | {"Ask it": f"plumbline generate {version} 'a prompt'", "Serve it": f"plumbline serve {version}"}


def advice(judgement: "Judgement") -> str:
    """What to change after a refusal, by the gates that refused."""
    refused = {gate.name for gate in judgement.gates if not gate.passed}
    if refused <= {"preference_accuracy"}:
        return "try more pairs and --dpo.steps, or a higher --dpo.learning-rate"
    if refused <= {"reward_gain", "win_rate"}:
        return "try more --prompts.count and --dpo.steps, or a better reward model"
    return "try a lower --dpo.learning-rate or a higher --dpo.beta"


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
