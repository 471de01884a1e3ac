"""What is tried again: real failures of real clients, as the library's errors carry them."""

import errno
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed, Failed

from alignment.errors import DataError, ModelError, PlumblineError, StoreError, TrackingError
from alignment.transient import is_transient
from tasks.registry import connection
from tasks.running import can_pass

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Answers `/503` with 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.strip("/").partition("/")[0]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def caught(act: Callable[[], Any]) -> Exception:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever the client raises
        return error
    raise AssertionError("nothing was raised")


def wrapped(error: Exception, kind: type[PlumblineError] = ModelError) -> Exception:
    """As the library translates what a client raises."""

    def act() -> None:
        try:
            raise error
        except Exception as cause:
            raise kind("model x: cannot be loaded") from cause

    return caught(act)


def with_requests(url: str) -> None:
    import requests

    requests.get(url, timeout=2).raise_for_status()


def with_httpx(url: str) -> None:
    import httpx

    httpx.get(url, timeout=2).raise_for_status()


def with_the_hub(url: str) -> None:
    from huggingface_hub import get_session, hf_raise_for_status

    hf_raise_for_status(get_session().get(url, timeout=2))


CLIENTS = pytest.mark.parametrize("get", [with_requests, with_httpx, with_the_hub])


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    from huggingface_hub import close_session

    close_session()


@CLIENTS
def test_a_refused_connection_may_pass(get: Callable[[str], None], online: None) -> None:
    error = wrapped(caught(lambda: get(NOWHERE)))
    assert is_transient(error), repr(error.__cause__)


@CLIENTS
@pytest.mark.parametrize(("status", "passes"), [(500, True), (503, True), (429, True), (404, False), (401, False)])
def test_a_busy_server_may_pass_and_a_refusal_does_not(
    get: Callable[[str], None], status: int, passes: bool, server: str, online: None
) -> None:
    error = caught(lambda: get(f"{server}/{status}"))
    assert is_transient(error) is passes
    assert is_transient(wrapped(error)) is passes


def test_the_hub_switched_off_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    assert not is_transient(wrapped(OfflineModeIsEnabled("offline")))


def test_a_name_that_does_not_resolve_now_and_a_timeout_may_pass() -> None:
    assert is_transient(wrapped(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")))
    assert is_transient(wrapped(TimeoutError("timed out"), DataError))


def test_a_full_disk_never_passes_whatever_else_happened() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert not is_transient(full)
    assert not is_transient(wrapped(full, StoreError))
    reset = ConnectionResetError("while it was told")
    reset.__cause__ = full
    assert not is_transient(reset)


@pytest.mark.parametrize(
    "error",
    [DataError("no column `text`"), ValueError("no"), FileNotFoundError(2, "No such file"), MemoryError()],
    ids=repr,
)
def test_bad_data_and_mistakes_do_not_pass(error: Exception) -> None:
    assert not is_transient(error)
    assert not is_transient(wrapped(error))


def test_a_locked_database_may_pass_and_a_broken_one_does_not(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"

    def touch() -> None:
        with connection.guard(), closing(sqlite3.connect(file, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")

    with closing(sqlite3.connect(file)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        locked = caught(touch)
    file.write_text("not a database" * 100)
    assert isinstance(locked, TrackingError)
    assert locked.transient
    assert is_transient(locked)
    assert not is_transient(caught(touch))


@pytest.mark.parametrize(("status", "passes"), [(503, True), (404, False)])
def test_mlflow_s_errors_say_whether_they_may_pass(
    status: int, passes: bool, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(connection, "_place", connection.Place(f"{server}/{status}", None))

    def ask() -> None:
        with connection.guard():
            connection.client().get_run("0" * 32)

    error = caught(ask)
    assert isinstance(error, TrackingError)
    assert error.transient is passes


def test_prefect_asks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_pass(Failed(data=wrapped(ConnectionRefusedError("refused"))))
    assert not can_pass(Failed(data=DataError("no")))
    assert not can_pass(Completed(data=1))
