"""Stops a run between two steps: a signal waits for the checkpoint, and work in other threads stops with its run."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

from alignment.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_EVERY = 0.2  # seconds between two looks whether the run is to stop

_ended: ContextVar[threading.Event | None] = ContextVar("_ended", default=None)


@contextmanager
def stopping_as_one() -> Iterator[None]:
    """The context of a run: if it raises an exception, its work in other threads stops at the next progress report."""
    ended = threading.Event()
    token = _ended.set(ended)
    try:
        yield
    except BaseException:
        ended.set()
        raise
    finally:
        _ended.reset(token)


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold back the first SIGTERM or SIGINT until the work inside has stopped, which it does at `require_wanted`.

    The signal then goes to the previous handler, Prefect's or the shell's; a second one goes there at once. Outside of
    a run, and in other threads than the main one, nothing is held. Hold it no longer than needed: meanwhile Prefect
    reports a cancellation as a crash first.
    """
    ended = _ended.get()
    if ended is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    held: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if held:
            _pass_on(before[number], number, frame)
        held.append(number)
        ended.set()

    for number in SIGNALS:
        before[number] = signal.signal(number, note)
    try:
        yield
    finally:
        for restored, handler in before.items():
            signal.signal(restored, handler)
        if held:
            _pass_on(before[held[0]], held[0], None)


def require_wanted() -> None:
    """Raise Interrupted if the run was asked to stop, or has ended."""
    ended = _ended.get()
    if ended is not None and ended.is_set():
        raise Interrupted("the run was asked to stop; run again to go on from the last checkpoint")


def pause(seconds: float) -> None:
    """Wait so long. Raises Interrupted if the run is asked to stop meanwhile."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        require_wanted()
        time.sleep(min(LOOK_EVERY, seconds))


def _pass_on(
    handler: Callable[[int, FrameType | None], Any] | int | None, number: int, frame: FrameType | None
) -> None:
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        signal.raise_signal(number)
