"""One stack per home, and what a killed one left behind does not count."""

import os
import signal
from pathlib import Path

import pytest
from rich.console import Console

from alignment.errors import StackError
from alignment.stages.store import write_json
from flows.stack.control import status as show_status
from flows.stack.services import stack_file
from flows.stack.state import lock_home, running

ADDRESSES = {"prefect": "http://127.0.0.1:1", "mlflow": "http://127.0.0.1:2", "receiver": "http://127.0.0.1:3"}


def test_one_stack_per_home(home: Path) -> None:
    assert running(home) is None
    with lock_home(home):
        write_json(stack_file(home, "stack.json"), {"pid": os.getpid(), **ADDRESSES})
        with pytest.raises(StackError, match=r"up already in .*: Prefect http://127.0.0.1:1, .*`plumbline down`"):
            lock_home(home).__enter__()
    assert running(home) is None
    with lock_home(home):
        pass


def test_what_a_killed_stack_left_is_not_taken_for_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack_file(home, "lock").parent.mkdir()
    stack_file(home, "lock").touch()
    write_json(stack_file(home, "stack.json"), {"pid": os.getpid(), **ADDRESSES})
    assert running(home) is None
    assert show_status(home, Console()) == 1
    assert "not up in" in capsys.readouterr().out


def test_a_request_to_stop_is_an_event_and_the_handlers_are_put_back(home: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with lock_home(home) as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before
