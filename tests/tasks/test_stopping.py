"""Signals: noted at once, held back while a checkpoint is written, and passed to whoever handled them before."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from alignment.errors import Interrupted
from tasks.stopping import SIGNALS, held_signals, require_wanted, stopping_as_one

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that reached the handler before, which lives on."""
    found: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        found.append(number)

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


def is_wanted() -> bool:
    try:
        require_wanted()
    except Interrupted:
        return False
    return True


def in_a_thread(work: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_a_held_section_the_handlers_are_prefect_s_or_the_shell_s(number: int, heard: list[int]) -> None:
    """So that Prefect knows a cancellation from a crash."""
    with stopping_as_one():
        before = signal.getsignal(number)
        signal.raise_signal(number)
        assert heard == [number]
        assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_inside_it_goes_on_after_the_section_and_the_work_is_told(number: int, heard: list[int]) -> None:
    with stopping_as_one():
        with held_signals():
            signal.raise_signal(number)
            assert heard == []
            with pytest.raises(Interrupted, match="run again to go on from the last checkpoint"):
                require_wanted()
        assert heard == [number]
    assert heard == [number]


def test_a_second_signal_goes_on_at_once(heard: list[int]) -> None:
    """A person who presses Ctrl-C twice means it."""
    with stopping_as_one(), held_signals():
        signal.raise_signal(signal.SIGTERM)
        assert heard == []
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT]


def test_the_handler_before_ends_the_run_and_the_work_s_own_end_is_its_cause() -> None:
    """As Prefect's does: it raises, out of the held section."""

    class Terminated(BaseException):
        pass

    def terminate(number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    def work() -> None:
        with stopping_as_one(), held_signals():
            signal.raise_signal(signal.SIGTERM)
            require_wanted()

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(Terminated) as raised:
            work()
    finally:
        signal.signal(signal.SIGTERM, before)
        assert raised.value.args == (signal.SIGTERM,)
    assert isinstance(raised.value.__context__, Interrupted)


def test_ctrl_c_is_python_s_own_after_the_section(heard: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = False

    def work() -> None:
        nonlocal reached
        with stopping_as_one(), held_signals():
            signal.raise_signal(signal.SIGINT)
            reached = True

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_the_handlers_before_are_put_back(heard: list[int], ends: str) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    try:
        with stopping_as_one(), held_signals():
            assert [signal.getsignal(number) for number in SIGNALS] != before
            if ends == "badly":
                raise ValueError("the work failed")
    except ValueError:
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with stopping_as_one():
        signal.raise_signal(signal.SIGTERM)  # nothing is held any more
        assert heard == [signal.SIGTERM]


def test_the_next_run_was_not_asked_to_stop(heard: list[int]) -> None:
    with stopping_as_one(), held_signals():
        signal.raise_signal(signal.SIGTERM)
    with stopping_as_one():
        require_wanted()
        with held_signals():
            require_wanted()
    assert heard == [signal.SIGTERM]


def test_work_in_other_threads_stops_once_its_run_has_ended_early() -> None:
    """As a shard of samples does, whose run was cancelled while it waits for the shards."""
    context: list[Context] = []

    def run() -> None:
        with stopping_as_one():
            context.append(copy_context())
            assert in_a_thread(lambda: context[0].run(is_wanted))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not in_a_thread(lambda: context[0].run(is_wanted))
    assert is_wanted()


def test_work_goes_on_where_its_run_ended_well() -> None:
    with stopping_as_one():
        context = copy_context()
    assert context.run(is_wanted)


def test_another_thread_changes_nothing(heard: list[int]) -> None:
    """Neither handlers nor what is held: Python lets the main thread alone set handlers."""

    def work() -> list[Any]:
        with stopping_as_one(), held_signals():
            return [signal.getsignal(number) for number in SIGNALS]

    before = [signal.getsignal(number) for number in SIGNALS]
    assert in_a_thread(work) == before

    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with held_signals():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    with stopping_as_one():
        thread.start()
        assert entered.wait(10)
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        leave.set()
        thread.join()
    assert heard == [signal.SIGTERM]


def test_a_section_without_a_run_around_it_holds_nothing(heard: list[int]) -> None:
    with held_signals():
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]


def test_a_process_without_a_handler_dies_of_the_signal_after_the_section() -> None:
    """The disposition of a process that nobody prepared, as the kernel knows it."""
    code = (
        "import os, signal\n"
        "from tasks.stopping import stopping_as_one, held_signals\n"
        "with stopping_as_one():\n"
        "    with held_signals():\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('kept', flush=True)\n"
        "    print('not reached', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("kept\n", -signal.SIGTERM), done.stderr


def test_a_signal_that_was_ignored_stays_so_but_the_work_stops(heard: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stopping_as_one():
        with held_signals():
            os.kill(os.getpid(), signal.SIGINT)
            assert not is_wanted()
        assert heard == []
