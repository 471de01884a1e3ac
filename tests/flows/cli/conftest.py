"""The command line run in this process, as `main` runs it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.flows.cli.outcome import Outcome


@pytest.fixture(autouse=True)
def activated(monkeypatch: pytest.MonkeyPatch) -> None:
    """An activated environment: the shell finds the program by its name."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)


@pytest.fixture
def plumbline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prefect_server: None
) -> Callable[..., Outcome]:
    """Run a command on the tests' Prefect server."""
    from prefect.settings import PREFECT_API_URL

    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    for name in ("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "TRANSFORMERS_VERBOSITY", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def call(*arguments: object) -> Outcome:
        from flows.cli.commands import main

        capsys.readouterr()  # what fixtures wrote is not the command's
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, arguments)])
        captured = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def plumbline_alone(at_home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command that needs no server."""

    def call(*arguments: object) -> Outcome:
        from flows.cli.commands import main

        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, arguments)])
        captured = capsys.readouterr()
        return Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    return call
