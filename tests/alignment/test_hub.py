"""Without a network the hub's cache is looked into at once; with one, nothing changes."""

import socket
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants, is_offline_mode

from alignment import models
from alignment.data.reading import read_columns
from alignment.data.wanted import Wanted
from alignment.errors import DataError, ModelError
from alignment.hub import cache_without_network
from alignment.outline import outline


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


def test_two_at_a_time_leave_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with cache_without_network():
        with cache_without_network():
            assert is_offline_mode()
        assert is_offline_mode()
    assert not is_offline_mode()


def test_for_a_folder_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with cache_without_network(tmp_path):
        assert not is_offline_mode()


# What is in no cache


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's own pauses between its tries are no part of a test: where it paused, this fails."""

    def pause(seconds: float) -> None:
        raise AssertionError(f"the library waits {seconds} s to ask again")

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", pause)


@pytest.mark.usefixtures("no_network")
def test_a_model_out_of_reach_is_one_line_without_a_pause_and_may_be_there_later(tmp_path: Path) -> None:
    for load in (models.load_base, outline):
        with pytest.raises(ModelError) as raised:
            load("someone/model")
        assert str(raised.value) == (
            f"base.model someone/model: is no folder here, is not, or not whole, in the hub's cache ({tmp_path}), and "
            "http://127.0.0.1:9 does not answer: connect this machine (HF_ENDPOINT names a mirror), or give the folder "
            "of `hf download someone/model --local-dir FOLDER` from where there is a network"
        )
        assert raised.value.transient


@pytest.mark.usefixtures("no_network")
def test_who_wants_to_be_offline_is_told_so_and_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="and HF_HUB_OFFLINE is set: unset it, or give the folder of") as raised:
        models.load_reward("someone/model")
    assert not raised.value.transient


@pytest.mark.usefixtures("no_network")
def test_a_dataset_out_of_reach_is_one_line_without_a_pause(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data\.path someone/reviews: cannot be read \(ConnectionError: .*; look at the n"
    ):
        read_columns(Wanted("someone/reviews", "text", "label"), tmp_path)
