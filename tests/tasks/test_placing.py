"""The place of a stage: its parts share one on a device, and give it up where they fail, end or wait."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any

import pytest

from alignment.errors import Interrupted, StackError
from alignment.stages.launch import Worker
from tasks.placing import give_up_place, one_place, place_for
from tasks.stopping import pause


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


def test_parts_that_are_left_over_when_one_has_failed_open_nothing(places: Places) -> None:
    """They are tasks in copies of this context, and what failed may not end the run, as a point of a frontier."""
    left_over = []

    def fail() -> None:
        with one_place():
            left_over.append(copy_context())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(Interrupted):
        left_over[0].run(places.part)
    assert places.told == []


def test_the_part_at_work_is_asked_to_stop_and_lets_go_before_the_place_is_closed(places: Places) -> None:
    at_work = threading.Event()

    def part() -> None:
        with suppress(Interrupted), place_for(places.open, is_shared=True):
            at_work.set()
            pause(60)
        places.told.append("let go")

    def run() -> None:
        with one_place():
            threading.Thread(target=copy_context().run, args=(part,)).start()
            assert at_work.wait(30)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    while "let go" not in places.told:
        pause(0.01)
    assert sorted(places.told) == ["closed", "let go", "open"]


def test_who_waits_for_another_run_gives_the_place_up(places: Places) -> None:
    with one_place():
        places.part()
        give_up_place()
        assert places.told == ["open", "part", "closed"]
        places.part()
    assert places.told == ["open", "part", "closed"] * 2


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
