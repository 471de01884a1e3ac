"""A Prefect that is not there, or is none, is one quick line that names PREFECT_API_URL and the way out."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import BaseModel, ValidationError

from alignment.errors import ConfigError, DataError, StackError
from flows.stack import prefect_api

STATUS = {"401": 401, "403": 403, "404": 404, "405": 405, "500": 500, "503": 503}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Answers `/503/...` with 503, `/json/...` with JSON, and everything else with HTML."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = self.path.split("/")[1]
            body = b'{"a": 1}' if kind == "json" else b"<html>Welcome</html>"
            self.send_response(STATUS.get(kind, 200))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def mute() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def refusal(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PREFECT_API_URL", url)
    started = time.monotonic()
    with pytest.raises(StackError) as raised:
        _ask(url)
    assert time.monotonic() - started < 15
    assert "PREFECT_API_URL" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    return str(raised.value)


def _ask(url: str) -> None:
    prefect_api.require_address(url)
    with temporary_settings({PREFECT_API_URL: url}):
        prefect_api.check()


def _run_a_task() -> None:
    try:
        httpx.get("http://127.0.0.1:9/api/flow_runs", trust_env=False)
    except httpx.HTTPError as error:
        raise RuntimeError("the task run could not be saved") from error


@pytest.mark.parametrize(
    "url",
    [
        *(
            "localhost:4200/api",
            "127.0.0.1:4200",
            "ftp://host/api",
            "http://",
            "http://[::1/api",
            "http://host:port/api",
        ),
        *("http://host:99999/api", "/tmp", "ephemeral", "http://a..b/api", "http://127.0.0.1:0/api"),
    ],
)
def test_what_is_no_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(url, monkeypatch) == (
        f"PREFECT_API_URL {url}: not an address that works; give http(s)://host:port/api"
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/api", "connection refused; start it, or unset PREFECT_API_URL"),
        ("http://me:secret@127.0.0.1:9/api", "Prefect at PREFECT_API_URL http://127.0.0.1:9/api: connection refused"),
        ("http://host.invalid/api", "no such host; start it, or unset PREFECT_API_URL"),
        ("http://{mute}/api", "no answer in time"),
        ("http://{server}/api", "what answers there is not Prefect's API"),
        ("http://{server}/json/api", "what answers there is not Prefect's API"),
        ("http://{server}/404/api", "what answers there is not Prefect's API"),
        ("http://{server}/405/api", "what answers there is not Prefect's API"),
        ("http://{server}/401/api", "not signed in; set PREFECT_API_AUTH_STRING or PREFECT_API_KEY"),
        ("http://me:secret@{server}/401/api", "not signed in"),
        ("http://{server}/403/api", "not allowed"),
        ("http://{server}/500/api", "Server error '500 Internal Server Error'"),
        ("http://{server}/503/api", "Server error '503 Service Unavailable'"),
        ("https://{server}/api", "it does not speak TLS; try http://"),
    ],
)
def test_a_server_that_does_not_serve(
    url: str, why: str, server: str, mute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_api, "WITHIN", 2.0)
    assert why in refusal(url.format(server=server, mute=mute), monkeypatch)


def test_a_server_that_serves_passes(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value())
    prefect_api.require_address(PREFECT_API_URL.value())
    prefect_api.check()


def test_its_end_in_the_middle_of_a_run_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """However deep in the flow engine the request was."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(StackError, match="connection refused; start it, or unset"), prefect_api.guard():
        _run_a_task()


def test_the_end_of_a_temporary_server_names_its_log(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with (
        pytest.raises(StackError, match=r"temporary server has ended; see .*server\.log"),
        prefect_api.guard(tmp_path / "server.log"),
    ):
        httpx.get("http://127.0.0.1:9/api/flow_runs", trust_env=False)


@pytest.mark.parametrize("error", [DataError("no column"), ValueError("another"), KeyError("x")])
def test_other_errors_keep_their_type(error: Exception) -> None:
    with pytest.raises(type(error)), prefect_api.guard():
        raise error


def test_the_same_client_s_error_elsewhere_is_not_prefect_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    with pytest.raises(httpx.ConnectError), prefect_api.guard():
        httpx.get("http://127.0.0.1:9/v1/completions", trust_env=False)


def test_a_setting_that_prefect_cannot_read_is_named() -> None:
    class APISettings(BaseModel):
        request_timeout: float

    with (
        pytest.raises(ConfigError, match="PREFECT_API_REQUEST_TIMEOUT or like it, 'soon': Input should be"),
        prefect_api.guard(),
    ):
        APISettings.model_validate({"request_timeout": "soon"})


def test_another_model_s_validation_is_not_a_setting() -> None:
    class Row(BaseModel):
        number: int

    with pytest.raises(ValidationError), prefect_api.guard():
        Row.model_validate({"number": "x"})
