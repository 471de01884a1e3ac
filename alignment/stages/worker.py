"""A stage in a process of its own, or in each process of a group: `python -m alignment.stages.worker FOLDER`.

The folder has the job, and gets the events and the outcome: see `alignment.stages.job_file`. Where the job wants
several processes, this one is their launcher, `torch.distributed.run`, and each of them is started with `--rank`.
"""

import ctypes
import fcntl
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from alignment.environment import PROCESSES
from alignment.errors import Interrupted
from alignment.stages.job_file import JOB, STOP, Events, read_job, write_counts, write_error

PARENT = "PLUMBLINE_PARENT"
"""The number of the process that waits for this one."""
LOCK = ".processes"
"""In the folder that survives a crash: held by every process that writes there."""

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Compute the job; the exit code is 0, or 1 where an error was written."""
    folder = Path(arguments[-1])
    end_with_parent(int(os.environ[PARENT]))
    is_rank = "--rank" in arguments
    if not is_rank and int(os.environ[PROCESSES]) > 1:
        return launch_group(folder, int(os.environ[PROCESSES]))
    rank = int(os.environ["RANK"]) if is_rank else 0
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
    tell_logs(events, logging.INFO if rank == 0 else logging.ERROR)

    def progress(done: int, total: int) -> None:
        if rank == 0:
            events.tell("progress", done, total)
        if stop.exists():
            raise Interrupted("the run was asked to stop; run again to go on from the last checkpoint")

    def on_row(row: dict[str, float]) -> None:
        if rank == 0:
            events.tell("row", row)

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


def tell_logs(events: Events, level: int) -> None:
    """Pass what the library logs, and warnings, on as events."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            events.tell("log", record.name, record.levelno, record.getMessage())

    logging.captureWarnings(True)
    for name in ("alignment", "expectations", "py.warnings"):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(Handler())


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what the libraries would still do at exit concerns nobody: the outcome is written
