"""A stage in a process of its own, or in each process of a group: `python -m alignment.stages.worker FOLDER`.

The folder has the job, and gets the events and the outcome: see `alignment.stages.job_file`. Folders of further jobs
come on the standard input, a line of JSON each, and its end is that of the process. Where a job wants several
processes, this one is their launcher, `torch.distributed.run`, and each of them is started with `--rank`.
"""

import ctypes
import fcntl
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import IO

from alignment.environment import PROCESSES
from alignment.errors import Interrupted
from alignment.stages.job_file import END, JOB, STOP, Events, read_job, write_counts, write_error

PARENT = "PLUMBLINE_PARENT"
"""The number of the process that waits for this one."""
LOCK = ".processes"
"""In the folder that survives a crash: held by every process that writes there."""

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Compute the job of a folder, and those named on the standard input; the exit code is 1 where one failed."""
    end_with_parent(int(os.environ[PARENT]))
    if "--rank" in arguments:
        return computed(Path(arguments[-1]), int(os.environ["RANK"]))
    first, further = Path(arguments[-1]), taken_input()
    if int(os.environ[PROCESSES]) > 1:
        return launch_group(first, int(os.environ[PROCESSES]))
    for folder in chain([first], map(Path, map(json.loads, further))):
        code = computed(folder, 0)
        Events(folder).tell(END, code)
        if code:
            return code
    return 0


def taken_input() -> IO[str]:
    """What comes on the standard input, which is empty to a stage's own code, and to what that starts."""
    further = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return further


def computed(folder: Path, rank: int) -> int:
    """Compute a job under the lock of its folder; gives the exit code, which is 1 where an error was written."""
    held = hold(Path(json.loads((folder / JOB).read_text(encoding="utf-8"))["work"]))
    try:
        with held:
            compute(folder, rank)
    except BaseException as error:  # noqa: BLE001 - who waits for this process raises it
        write_error(folder, error, rank)
        return 1
    return 0


def compute(folder: Path, rank: int) -> None:
    """Fill the job's folder. The first process tells of the progress; all of them leave where they are to stop."""
    events, stop = Events(folder), folder / STOP

    def progress(done: int, total: int) -> None:
        if rank == 0:
            events.tell("progress", done, total)
        if stop.exists():
            raise Interrupted("the run was asked to stop; run again to go on from the last checkpoint")

    def on_row(row: dict[str, float]) -> None:
        if rank == 0:
            events.tell("row", row)

    with logs_told(events, logging.INFO if rank == 0 else logging.ERROR):
        stage, job = read_job(folder, progress=progress, on_row=on_row)
        from alignment.stages.parts import fill

        if int(os.environ[PROCESSES]) > 1:
            from alignment.training import group

            group.join()
            if rank:  # what all have made, the first one writes
                job = replace(job, out=folder / f"out-{rank}")
                job.out.mkdir()
        counts = fill(stage, job)
    if rank == 0:
        write_counts(folder, counts)


def launch_group(folder: Path, processes: int) -> int:
    """Start the processes of a group and wait for them; one that dies ends the others."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    os.environ[PARENT] = str(os.getpid())
    own = ["--standalone", "--nproc-per-node", str(processes), "-m", "alignment.stages.worker", "--rank", str(folder)]
    try:
        run(own)
    except ChildFailedError as error:
        since = min(failure.timestamp for failure in error.failures.values()) + 1  # whole seconds
        for rank, failure in error.failures.items():
            if _was_killed(failure.exitcode) and failure.timestamp <= since:
                write_death(folder, rank, processes, signal.Signals(-failure.exitcode).name)
        return 1
    return 0


def _was_killed(code: int) -> bool:
    """Whether a process was ended by a signal; SIGTERM is what its launcher ends the others with."""
    return code < 0 and code != -signal.SIGTERM


def write_death(folder: Path, rank: int, processes: int, signal_name: str) -> None:
    """Leave which process of a group was killed, unless it has said itself what ended it: before what others met."""
    from alignment.errors import ProcessError

    if not (folder / f"error-{rank}.json").exists():
        stage = json.loads((folder / JOB).read_text(encoding="utf-8"))["stage"]["name"]
        told = f"{stage}: process {rank + 1} of {processes} was ended by {signal_name}, and the others with it"
        write_error(folder, ProcessError(f"{told}; run again to go on from what is kept"), rank, at=1.0)


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process once its parent has died, and end it where that is so already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def hold(work: Path) -> IO[str]:
    """Share the lock of the folder that survives a crash: who starts processes there waits until all are gone."""
    file = (work / LOCK).open("a+")
    share(file)
    return file


def share(file: IO[str]) -> None:
    """Share the lock of a file with others; a shared disk may have no such locks."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)


@contextmanager
def logs_told(events: Events, level: int) -> Iterator[None]:
    """Pass what the library logs, and warnings, on as events."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            events.tell("log", record.name, record.levelno, record.getMessage())

    logging.captureWarnings(True)
    handler = Handler()
    loggers = [logging.getLogger(name) for name in ("alignment", "expectations", "py.warnings")]
    for logger in loggers:
        logger.setLevel(level)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what the libraries would still do at exit concerns nobody: the outcome is written
