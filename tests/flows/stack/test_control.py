"""What `plumbline status` shows of a running stack."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.stack import control
from flows.stack.state import State


def test_a_prefect_that_is_too_busy_to_tell_what_runs_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_: str) -> Any:
        raise TimeoutError("timed out")

    server = "http://127.0.0.1:1"
    monkeypatch.setattr(control, "running", lambda _: State(1, server, server, server))
    monkeypatch.setattr(control, "answers", lambda _: True)
    monkeypatch.setattr(control, "last_heartbeat", lambda _: 3.0)
    monkeypatch.setattr(control, "read_activity", busy)
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system="standard")
    assert control.status(tmp_path, console) == 0
    (told,) = (line for line in out.getvalue().splitlines() if "busy" in line)
    assert "Prefect is busy and did not tell in time; ask again" in told
    assert told.startswith("\x1b[35m"), "magenta: yellow fades on white"
