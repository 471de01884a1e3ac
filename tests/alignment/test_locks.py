"""A lock on a file: one at a time, free when its holder dies, and who waits says so once."""

import logging
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignment.errors import Interrupted
from alignment.locks import alone


def _count(folder: str) -> None:
    for _ in range(20):
        with alone(Path(folder) / "lock", "counting"):
            file = Path(folder) / "count"
            before = int(file.read_text() or "0")
            time.sleep(0.001)
            file.write_text(str(before + 1))


def test_four_processes_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the lock some of the 80 additions would be lost."""
    (tmp_path / "count").write_text("0")
    monkeypatch.setattr("alignment.locks.LOCK_POLL", 0.001)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count, args=(str(tmp_path),)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "count").read_text() == "80"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_who_waits_says_once_what_for_and_can_be_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = f"""
import time; from pathlib import Path; from alignment.locks import alone
with alone(Path({str(tmp_path / "lock")!r}), "first"):
    print("held", flush=True); time.sleep(60)
"""
    asked = 0

    def wanted() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Interrupted("enough")

    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Interrupted), alone(tmp_path / "lock", "somebody counts", wanted, logging.WARNING):
            pass
        assert caplog.messages == ["somebody counts; waiting for it"]
        other.kill()
    with alone(tmp_path / "lock", "dead"):
        pass


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), alone(tmp_path / "deep" / "lock", "x"):
            _ = 1 / 0
