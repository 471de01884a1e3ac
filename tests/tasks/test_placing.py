"""The place of a stage: its parts share one on a device, and its process loads a model once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from alignment.errors import StackError
from alignment.stages.launch import Worker
from tasks.placing import one_place, place_for


class Places:
    """Opens places, and writes down what becomes of them."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.threads: set[int] = set()
        self.fails = False

    @contextmanager
    def open(self) -> Iterator[Worker | None]:
        self.threads.add(threading.get_ident())
        if self.fails:
            raise StackError("the server is away; try again")
        self.told.append("open")
        try:
            yield None
        finally:
            self.threads.add(threading.get_ident())
            self.told.append("closed")

    def part(self) -> None:
        with place_for(self.open, is_shared=True):
            self.told.append("part")


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setenv("PLUMBLINE_DEVICES", "0")
    return Places()


def test_parts_share_a_place_that_one_thread_opens_and_closes(places: Places) -> None:
    with one_place():
        places.part()
        places.part()
    assert places.told == ["open", "part", "part", "closed"]
    assert len(places.threads) == 1
    assert threading.get_ident() not in places.threads
    assert not [thread for thread in threading.enumerate() if thread.name == "place of parts"]


def test_a_part_that_fails_gives_the_place_up_and_the_next_one_opens_another(places: Places) -> None:
    with one_place():
        with pytest.raises(ZeroDivisionError), place_for(places.open, is_shared=True):
            raise ZeroDivisionError
        places.part()
    assert places.told == ["open", "closed", "open", "part", "closed"]


def test_a_place_that_cannot_be_opened_is_asked_for_again_by_the_next_part(places: Places) -> None:
    places.fails = True
    with one_place():
        with pytest.raises(StackError, match=r"^the server is away"):
            places.part()
        places.fails = False
        places.part()
    assert places.told == ["open", "part", "closed"]


@pytest.mark.parametrize("shares", [lambda: one_place(), None], ids=["no device", "no parts"])
def test_others_have_a_place_of_their_own(
    places: Places, monkeypatch: pytest.MonkeyPatch, shares: Callable[[], Any] | None
) -> None:
    if shares is not None:
        monkeypatch.setenv("PLUMBLINE_DEVICES", "")
        with shares():
            places.part()
            places.part()
    else:
        places.part()
        places.part()
    assert places.told == ["open", "part", "closed"] * 2
