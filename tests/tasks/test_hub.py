"""Without a network the hub's cache is looked into at once; with one, nothing changes."""

import socket
from threading import Thread

import pytest
from huggingface_hub import constants, is_offline_mode

from tasks.hub import cache_without_network


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def server() -> "socket.socket":
    """A server on this machine that answers one request, with an error."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        client, _ = listening.accept()
        client.recv(4096)
        client.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        client.close()

    Thread(target=answer, daemon=True).start()
    return listening


def test_where_nothing_answers_the_library_is_offline_for_the_time_being(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with cache_without_network():
        assert is_offline_mode()
    assert not is_offline_mode()


def test_a_hub_that_answers_is_asked_even_if_it_is_busy(
    server: "socket.socket", monkeypatch: pytest.MonkeyPatch
) -> None:
    with server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with cache_without_network():
            assert not is_offline_mode()


def test_who_wants_to_be_offline_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with cache_without_network():
        assert is_offline_mode()
    assert is_offline_mode()
