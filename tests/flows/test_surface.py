"""What a command can be pointed at that does not fit: one line, and the exit code that the README promises."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alignment.config import PromotionConfig
from alignment.errors import InputError, StackError, StoreError
from flows.cli.result import require_writable
from flows.stack import receiver
from flows.stack.prefect_server import prefect_server

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def plumbline(tmp_path: Path) -> Call:
    """Run a command in a process of its own; returns its exit code and what it says of the failure."""

    def call(*arguments: object, **variables: str) -> tuple[int, str]:
        root = str(Path(__file__).parents[2])
        env = os.environ | {"PLUMBLINE_HOME": str(tmp_path / "home"), "PYTHONPATH": root} | variables
        command = [sys.executable, "-c", "from flows.cli.commands import main; main()", *map(str, arguments)]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    return call


def told(outcome: tuple[int, str], code: int, text: str) -> None:
    assert outcome[0] == code
    assert text in outcome[1]
    assert "unexpected" not in outcome[1]
    assert len(outcome[1].splitlines()) == 1


@pytest.mark.parametrize("sign", ["?", "\n", "\udce9"])
def test_a_home_that_no_database_can_lie_in(sign: str, plumbline: Call, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    told(plumbline("plan", PLUMBLINE_HOME=f"{tmp_path}/h{sign}1"), 2, "PLUMBLINE_HOME")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("home", ["file", "file/below", "dangling", "loop", "/dev/null/x"])
def test_a_home_that_cannot_be_made(home: str, plumbline: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("/nowhere/x")
    (tmp_path / "loop").symlink_to("loop")
    told(plumbline("plan", PLUMBLINE_HOME=home), 1, "cannot be created")


def test_a_folder_of_prefect_s_in_whose_place_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(StoreError, match="file: File exists; point PLUMBLINE_HOME at"), prefect_server(tmp_path):
        pass


@pytest.mark.parametrize(
    ("port", "command"),
    [("99999", "receiver"), ("-1", "receiver"), ("http", "receiver"), ("65536", "up")],
)
def test_no_port(port: str, command: str, plumbline: Call) -> None:
    flag = "--port" if command == "receiver" else "--prefect-port"
    told(plumbline(command, flag, port), 2, flag)


@pytest.mark.parametrize(
    "command", ["run", "retrain", "sweep", "frontier", "promote", "rollback", "smoke", "bootstrap", "data-arrived"]
)
def test_a_dead_prefect(command: str, plumbline: Call) -> None:
    more = {"promote": ["--yes"]}.get(command, [])
    outcome = plumbline(command, *more, PREFECT_API_URL="http://me:secret@127.0.0.1:9/api")
    told(outcome, 1, "PREFECT_API_URL http://127.0.0.1:9/api: connection refused")


def test_a_plan_needs_no_prefect(plumbline: Call) -> None:
    assert plumbline("plan", PREFECT_API_URL="http://127.0.0.1:9/api") == (0, "")


@pytest.mark.parametrize("json", [".", "file/x.json", "nowhere/x.json", "x" * 300])
def test_a_result_that_could_not_be_written_is_refused_before_it_is_computed(
    json: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--json"):
        require_writable(Path(json))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("json", [None, "new.json", "old.json", "/dev/null"])
def test_one_that_can_be_written_passes(json: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").write_text("old")
    require_writable(json and Path(json))  # type: ignore[arg-type]
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_receiver_that_cannot_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server below it ends with 3, which is a refusal's code."""
    monkeypatch.setenv("PLUMBLINE_WEBHOOK_SECRET", "0123456789abcdef" * 4)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"receiver at 127.0.0.1:{port}: .*in use"):
            receiver.serve("127.0.0.1", port, PromotionConfig())
    with pytest.raises(StackError, match=r"receiver at no\.such\.invalid:5055: "):
        receiver.serve("no.such.invalid", 5055, PromotionConfig())
