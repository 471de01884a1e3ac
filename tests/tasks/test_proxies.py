"""Proxies of the environment: every client reaches loopback without one, and the rest of the world through it."""

import os
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import requests

from alignment.errors import ConfigError
from tasks.proxies import is_behind_proxy, require_usable, spare_loopback

DEAD = "http://127.0.0.1:9"
FAR = "http://far.example"
NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def by_urllib(url: str) -> int:
    with urllib.request.build_opener().open(url, timeout=5) as answer:  # `urlopen` keeps the first proxies
        return int(answer.status)


CLIENTS: dict[str, Callable[[str], int]] = {
    "urllib": by_urllib,
    "requests, of MLflow": lambda url: requests.get(url, timeout=5).status_code,
    "httpx, of Prefect and the hub": lambda url: httpx.get(url, timeout=5).status_code,
}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """Answers everything; as a proxy too, and remembers what it was asked for."""

    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.asked = asked  # type: ignore[attr-defined]
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def setting(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    changed = dict(os.environ)
    spare_loopback(changed)
    for name in ("NO_PROXY", "no_proxy"):
        if name in changed:
            monkeypatch.setenv(name, changed[name])


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize(
    "variables",
    [
        {"HTTP_PROXY": DEAD},
        {"http_proxy": DEAD, "HTTPS_PROXY": DEAD},
        {"ALL_PROXY": DEAD},
        {"all_proxy": "127.0.0.1:9"},
        {"HTTP_PROXY": DEAD, "NO_PROXY": "corp.example"},
        {"http_proxy": DEAD, "no_proxy": " .corp.example , 10.0.0.0/8"},
        {"http_proxy": DEAD, "NO_PROXY": "corp.example", "no_proxy": "other.example"},
        {"http_proxy": DEAD, "no_proxy": ""},
        {"http_proxy": DEAD, "NO_PROXY": "localhost"},
        {"http_proxy": DEAD, "NO_PROXY": "*"},
        {"http_proxy": DEAD, "NO_PROXY": "*,corp.example"},
    ],
)
def test_loopback_is_reached_without_the_proxy(
    variables: dict[str, str], client: Callable[[str], int], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(monkeypatch, **variables)
    for host in ("127.0.0.1", "localhost"):
        assert client(f"http://{host}:{server.server_port}/health") == 200


@pytest.mark.parametrize(
    ("name", "client"),
    [
        (name, client)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY")
        for client in CLIENTS.values()
        if (name, client) != ("ALL_PROXY", by_urllib)  # which knows none
    ],
)
def test_what_is_far_still_goes_through_the_proxy(
    name: str, client: Callable[[str], int], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(monkeypatch, **{name: f"http://127.0.0.1:{server.server_port}", "NO_PROXY": "corp.example"})
    assert client(f"{FAR}/{name}") == 200
    assert server.asked[-1] == f"{FAR}/{name}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),  # no proxy: nothing is touched
        ({"NO_PROXY": "a"}, {"NO_PROXY": "a"}),
        ({"HTTP_PROXY": ""}, {"HTTP_PROXY": ""}),
        ({"ALL_PROXY": "p", "NO_PROXY": "a, b"}, {"ALL_PROXY": "p", "NO_PROXY": "a, b,127.0.0.1,localhost,::1"}),
        ({"ALL_PROXY": "p", "no_proxy": "::1,localhost"}, {"ALL_PROXY": "p", "no_proxy": "::1,localhost,127.0.0.1"}),
        ({"ALL_PROXY": "p", "NO_PROXY": "*"}, {"ALL_PROXY": "p", "NO_PROXY": "*"}),
    ],
)
def test_nothing_else_of_the_exceptions_changes(before: dict[str, str], after: dict[str, str]) -> None:
    spare_loopback(before)
    assert before == after
    spare_loopback(before)
    assert before == after, "twice is once"


@pytest.mark.parametrize(
    ("variables", "behind"),
    [
        ({}, False),
        ({"HTTP_PROXY": DEAD}, True),
        ({"ALL_PROXY": DEAD}, True),
        ({"HTTPS_PROXY": DEAD}, False),
        ({"HTTP_PROXY": DEAD, "NO_PROXY": "far.example"}, False),
    ],
)
def test_who_is_behind_a_proxy(variables: dict[str, str], behind: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_behind_proxy("http://me:secret@far.example:80/x") is behind


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"ALL_PROXY": "socks5://me:secret@far.example:1080"},
            "ALL_PROXY socks5://far.example:1080: a SOCKS proxy needs",
        ),
        (
            {"http_proxy": "socks4://far.example"},
            "http_proxy socks4://far.example: not an address like http://host:port",
        ),
        ({"HTTPS_PROXY": "far.example:port"}, "HTTPS_PROXY far.example:port: not an address"),
        ({"http_proxy": "http://[::1"}, r"http_proxy http://\[::1: not an address"),
        ({"http_proxy": "http://"}, "http_proxy http://: not an address"),
    ],
)
def test_a_proxy_that_no_client_can_use_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        require_usable(variables)
    assert "NO_PROXY=*" in str(raised.value)
    assert "secret" not in str(raised.value)
    require_usable(variables | {"NO_PROXY": "*"})


@pytest.mark.parametrize("proxy", ["http://far.example:3128", "far.example:3128", "https://me:pw@far.example", DEAD])
def test_others_are_left_to_the_clients(proxy: str) -> None:
    require_usable({"http_proxy": proxy})
    httpx.Client(proxy=proxy if "://" in proxy else f"http://{proxy}").close()
