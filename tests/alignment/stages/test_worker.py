"""Of a group of processes, the one that was killed is told, and not what the others met by it."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from alignment.errors import DataError
from alignment.stages import worker
from alignment.stages.job_file import JOB, read_error, write_error


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        (
            [1, -signal.SIGKILL],
            "policy: process 2 of 2 was ended by SIGKILL, and the others",
        ),
        (
            [-signal.SIGSEGV, -signal.SIGTERM],
            "policy: process 1 of 2 was ended by SIGSEGV, and the others",
        ),
        ([1, -signal.SIGTERM], "the first's own"),
    ],
)
def test_the_process_that_was_killed_is_told(
    codes: list[int], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process has left what it met a little earlier than the launcher looked."""
    (tmp_path / JOB).write_text(json.dumps({"stage": {"name": "policy"}}))
    if codes[0] == 1:
        write_error(tmp_path, DataError("the first's own"), 0)

    def run(_: list[str]) -> Any:
        failures = [ProcessFailure(rank, 100 + rank, int(code), "<N/A>") for rank, code in enumerate(codes)]
        raise ChildFailedError("worker", dict(enumerate(failures)))

    monkeypatch.setattr("torch.distributed.run.main", run)
    monkeypatch.setenv(worker.PARENT, "1")
    assert worker.launch_group(tmp_path, 2) == 1
    assert str(read_error(tmp_path, "policy")).startswith(told)
