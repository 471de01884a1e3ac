"""Stops a run between two steps: a signal is noted at once, and goes on to its handler once a checkpoint is kept."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from alignment.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_asked = threading.Event()
_holding = False
_held: list[int] = []


@contextmanager
def heeded_signals() -> Iterator[None]:
    """Note SIGTERM and SIGINT while it lasts, then pass them to the handlers before: Prefect's, or the shell's.

    Work in other threads stops at its next report of progress. A thread other than the main one changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {}
    _asked.clear()
    _held.clear()

    def note(number: int, frame: FrameType | None) -> None:
        again = _asked.is_set()
        _asked.set()
        if _holding and not again:
            _held.append(number)
        else:
            _pass_on(handlers[number], number, frame)

    for number in SIGNALS:
        handlers[number] = signal.signal(number, note)
    try:
        yield
    finally:
        for restored, handler in handlers.items():
            signal.signal(restored, handler)


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold the first signal back until the work inside, which heeds `require_wanted`, has stopped by itself."""
    global _holding
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _holding = True
    try:
        yield
    finally:
        _holding = False
        if _held:
            number = _held.pop()
            _pass_on(signal.getsignal(number), number, None)


def require_wanted() -> None:
    """Raise Interrupted where the run was asked to stop."""
    if _asked.is_set():
        raise Interrupted("the run was asked to stop; run again to go on from the last checkpoint")


def _pass_on(
    handler: Callable[[int, FrameType | None], Any] | int | None, number: int, frame: FrameType | None
) -> None:
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
