"""An exit code never depends on the terminal: signs that it lacks are replaced, output that nobody takes is dropped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SIGNS = "≥ 0.55, 1.2 − 0.3 → ×1.05…, β 0.3, café, 日本, \udce9"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}


def speak(code: str, shell: str = "{}", **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Run `code` in a fresh Python whose streams are steady; `shell` says what becomes of its output."""
    program = f"from flows.cli.output import make_steady; make_steady(); import sys; SIGNS = {SIGNS!a}\n{code}"
    command = shell.format(f'"{sys.executable}" -c "$PROGRAM"')
    root = Path(__file__).parents[3]
    env = ENVIRONMENT | {"PROGRAM": program, "PYTHONPATH": str(root)} | variables
    return subprocess.run(["bash", "-c", command], capture_output=True, env=env, check=False)


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    ],
)
def test_ascii_spells_the_signs_that_matter(variables: dict[str, str]) -> None:
    done = speak("print(SIGNS); print(SIGNS, file=sys.stderr)", **variables)
    spelt = b">= 0.55, 1.2 - 0.3 -> x1.05..., beta 0.3, cafe, ??, ?\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, spelt, spelt)


@pytest.mark.parametrize(
    ("encoding", "spelt"),
    [
        ("latin-1", ">= 0.55, 1.2 - 0.3 -> ×1.05..., beta 0.3, café, ??, ?\n"),
        ("cp1252", ">= 0.55, 1.2 - 0.3 -> ×1.05…, beta 0.3, café, ??, ?\n"),
        ("utf-8", SIGNS.replace("\udce9", "?") + "\n"),
    ],
)
def test_an_encoding_keeps_what_it_has(encoding: str, spelt: str) -> None:
    done = speak("print(SIGNS)", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout.decode(encoding), done.stderr) == (0, spelt, b"")


@pytest.mark.parametrize(
    "shell",
    [
        "{} | head -1; exit ${{PIPESTATUS[0]}}",
        "{} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}",
        "{} >/dev/full",
        "{} >/dev/full 2>/dev/full",
        "{} >&-",
        "{} 2>&-",
        "{} >&- 2>&- <&-",
        "exec {} | true; exit ${{PIPESTATUS[0]}}",
    ],
)
@pytest.mark.parametrize("code", [0, 3])
def test_output_that_nobody_takes_changes_no_exit_code(shell: str, code: int) -> None:
    lots = "for _ in range(9999): print(SIGNS * 9); print(SIGNS, file=sys.stderr)\nsys.stdout.flush()\n"
    assert speak(f"{lots}sys.exit({code})", shell).returncode == code


def test_a_full_disk_is_said_once() -> None:
    done = speak("for _ in range(3): print(SIGNS, flush=True)", "{} >/dev/full")
    assert done.stderr == b"plumbline: the output is not written: No space left on device\n"


def test_a_log_and_a_table_reach_an_ascii_terminal() -> None:
    code = """
import logging
from rich.console import Console
from rich.table import Table
logging.basicConfig()
logging.getLogger('plumbline').warning('%s', SIGNS)
table = Table('gate', 'bound'); table.add_row('win rate', '≥ 0.55')
Console().print(table); Console(stderr=True).print('[red]≥[/]')
"""
    done = speak(code, PYTHONIOENCODING="ascii", COLUMNS="20", TERM="dumb", NO_COLOR="1")
    assert done.returncode == 0
    assert b">= 0.55" in done.stdout
    assert done.stderr.splitlines()[0].startswith(b"WARNING:plumbline:>= 0.55")
    assert done.stderr.splitlines()[-1] == b">="


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    code = "import os; os.set_blocking(1, False)\nfor _ in range(9999): print('x' * 99)"
    done = speak(code, "{} | (sleep 0.5; wc -l)")
    assert done.stdout.strip() == b"9999"


@pytest.mark.parametrize("shell", ["{}", "{} 2>/dev/full", "{} 2>&-"])
def test_a_refusal_keeps_its_exit_code(shell: str, tmp_path: Path) -> None:
    code = "from flows.cli.commands import main; main(['run', '--config', 'nö ≥.yaml'])"
    assert speak(code, shell, PYTHONIOENCODING="ascii", PLUMBLINE_HOME=str(tmp_path)).returncode == 2
