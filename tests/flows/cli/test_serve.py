"""Serving by one command: the server's own command, a line that a shell takes as it is, and an end without remains."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli import serve
from tests.registered import make_version


def test_the_command_names_a_version_and_loopback() -> None:
    words = serve.command("models:/it costs 5$/3", 5001)
    assert words[1:5] == ["-m", "mlflow", "models", "serve"]
    assert words[words.index("--model-uri") + 1] == "models:/it costs 5$/3"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--port") + 1] == "5001"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [(5001, ""), (0, ""), (80, "Port 80 cannot be used; took 5001.")],  # 80: in use, or no right to
)
def test_another_port_than_the_wanted_one_is_told_of(wanted: int, told: str) -> None:
    assert serve.other_port(wanted, 5001) == told


def test_nothing_is_said_to_be_served_before_it_is(
    at_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alignment.errors import StackError
    from tasks.registry import connection, runs

    monkeypatch.setattr(connection, "_place", None)
    runs.configure(f"sqlite:///{at_home}/mlflow.db", at_home / "artifacts")
    make_version("not served yet")
    monkeypatch.setattr(serve, "quieten", lambda *_: None)
    monkeypatch.setattr(serve, "command", lambda *_: ["false"])
    monkeypatch.setattr("tasks.registry.models.require_base", lambda _: None)  # it has no files
    with pytest.raises(StackError, match="ended with code 1 at its start"):
        serve.serve("not served yet", port=0)
    shown = " ".join(capsys.readouterr().out.split())
    assert "version 1 (challenger), will be served on http://127.0.0.1:" in shown
    assert "cannot be used" not in shown


@pytest.mark.parametrize("prompt", ["the film was", 'it\'s "5$" \\ `rm` 电影\nx'])
def test_a_shell_takes_the_line_as_it_is(prompt: str) -> None:
    words = shlex.split(serve.curl("http://127.0.0.1:5001", {"inputs": [prompt]}).replace("\\\n", ""))
    assert words[:2] == ["curl", "http://127.0.0.1:5001/invocations"]
    assert json.loads(words[words.index("-d") + 1]) == {"inputs": [prompt]}


def test_the_prompt_is_the_first_of_the_record(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.registry import connection, models, runs

    monkeypatch.setattr(connection, "_place", None)
    runs.configure(f"sqlite:///{at_home}/mlflow.db", at_home / "artifacts")
    chat = False
    monkeypatch.setattr(models, "takes_messages", lambda uri: chat)
    recorded, by_hand = make_version("served"), make_version("served", record=False)
    assert serve.request(recorded) == {"inputs": ["film 0"]}
    assert serve.request(by_hand) == {"inputs": [serve.PROMPT]}
    chat = True
    asked = serve.request(by_hand)
    assert asked["messages"] == [{"role": "user", "content": serve.GREETING}]
    assert asked["max_tokens"] > 0


def test_what_the_server_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "STOPS_WITHIN", 0.5)
    script = "trap '' TERM; sleep 60 & echo $! $$; wait; wait"  # neither ends when it is asked to
    log = tmp_path / "below" / "log"
    with serve.serving(["bash", "-c", script], {"WHO": "us"}, log) as process:
        for _ in range(100):
            if len(log.read_text().split()) == 2:
                break
            time.sleep(0.05)
        child, parent = map(int, log.read_text().split())
        assert parent == process.pid
        assert Path(f"/proc/{child}").exists()
    assert not Path(f"/proc/{parent}").exists()
    assert not alive(child)


def test_a_model_that_is_not_registered_is_refused_before_anything_starts(plumbline: Callable[..., Any]) -> None:
    done = plumbline("serve", "nothing-of-this-name")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no model is registered by this name" in done.err


def alive(pid: int) -> bool:
    """Whether a process is there and does more than wait for its parent to notice its end."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_this_environment_is_first_on_the_path(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve.serving(["bash", "-c", "echo $PATH; echo $WHO; sleep 60"], {"WHO": "us"}, log):
        for _ in range(100):
            if log.read_text().count("\n") == 2:
                break
            time.sleep(0.05)
        path, who = log.read_text().split()
    assert path.split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert who == "us"
