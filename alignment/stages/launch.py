"""Computes a stage in a process of its own, or in a group of them, with the devices that it may use and no others.

Its memory is free once the process has ended. It writes where this one says, ends with it, and tells by files how far
it is; the lock of the stage, its key and its place in the store stay here.
"""

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from alignment.config import AlignConfig
from alignment.environment import PROCESSES
from alignment.errors import Interrupted, ProcessError
from alignment.passed_on import passed_on
from alignment.stages.job import Counts, Job
from alignment.stages.job_file import OUTPUT, STOP, followed, read_counts, read_error, write_job
from alignment.stages.shortage import what_helps
from alignment.stages.stage import Stage
from alignment.stages.worker import LOCK, PARENT, share

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
LOOK_EVERY = 0.05  # seconds between two looks at what a process tells
DYING = 10.0  # seconds that a killed process may take to end
LAST_WORDS = 300  # signs of what a process wrote before it ended without an error of its own


def launch(
    stage: Stage,
    job: Job,
    *,
    devices: Sequence[str] = (),
    processes: int = 1,
    wanted: Callable[[], None] = lambda: None,
    keep_open: Sequence[int] = (),
) -> Counts:
    """Fill a job's folder in another process, or in a group of so many; returns the counts.

    They see the `devices` alone, by their names in CUDA_VISIBLE_DEVICES; without any, the environment decides. `wanted`
    is called all the time, and raises Interrupted to stop the work: a training first keeps a checkpoint. The file
    descriptors `keep_open` stay open for as long as the process lives, and so do locks on them. Raises what ended the
    process, as it would be raised here, and ProcessError where it was killed, or failed in a way of its own.
    """
    folder = job.scratch / "process"
    with _alone(job.work, wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_job(folder, stage, job)
        with (folder / OUTPUT).open("wb") as output, _started(folder, output, devices, processes, keep_open) as child:
            _follow(child, folder, job, wanted)
    counts, error = read_counts(folder), read_error(folder, stage.name)
    if counts is None or child.returncode:
        raise error or ProcessError(_death(stage.name, child.returncode, folder, job.config))
    shutil.rmtree(folder, ignore_errors=True)
    return counts


@contextmanager
def _alone(work: Path, wanted: Callable[[], None]) -> Iterator[None]:
    """Wait until no process of an earlier run writes to the folder that survives a crash, then share its lock.

    At the end, wait for the processes that were started meanwhile.
    """
    with (work / LOCK).open("a+") as file:
        while not _is_alone(file):
            wanted()
            time.sleep(LOOK_EVERY)
        share(file)
        try:
            yield
        finally:  # of a group that was killed, each process ends by itself: the memory of its device is free then
            ends = time.monotonic() + DYING
            while not _is_alone(file) and time.monotonic() < ends:
                time.sleep(LOOK_EVERY)


def _is_alone(file: IO[str]) -> bool:
    """Take the lock that every process in the folder shares; False where there is another one."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a shared disk without such locks: who computes there is known by the store alone
        pass
    return True


@contextmanager
def _started(
    folder: Path, output: Any, devices: Sequence[str], processes: int, keep_open: Sequence[int]
) -> Iterator["subprocess.Popen[bytes]"]:
    """The process, in a session of its own: Ctrl-C reaches it as a stop and not as a signal. It is gone afterwards."""
    child = subprocess.Popen(  # noqa: S603 - this interpreter and this module
        [sys.executable, "-m", "alignment.stages.worker", str(folder)],
        env=environment(devices, processes),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=tuple(keep_open),
    )
    try:
        yield child
    finally:
        if child.poll() is None:  # an error here, or a second Ctrl-C
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def environment(devices: Sequence[str], processes: int) -> dict[str, str]:
    """The variables of the process: those of this one that a stage has a use for, and the devices that it sees."""
    found = passed_on()
    path = [str(ROOT), *filter(None, [found.get("PYTHONPATH")])]  # the code that this process runs
    found |= {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONSAFEPATH": "1",  # and nothing of the folder that it happens to be in
        PARENT: str(os.getpid()),
        PROCESSES: str(processes),
    }
    if devices:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        found.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # numbers are those that the driver lists
    elif processes > 1:
        found.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    return found


def _follow(child: "subprocess.Popen[bytes]", folder: Path, job: Job, wanted: Callable[[], None]) -> None:
    """Pass on what the process tells until it has ended; asked to stop, have it stop, and wait for that."""
    has_ended = False
    for events in followed(folder):
        for kind, *values in events:
            if kind == "log":
                name, level, message = values
                logging.getLogger(name).log(level, "%s", message)
            elif kind == "row" and job.on_row is not None:
                job.on_row(*values)
            elif kind == "progress":
                _unless_stopped(folder, partial(job.progress, *values))
        _unless_stopped(folder, wanted)
        if has_ended and not events:
            return
        has_ended = child.poll() is not None  # before the next look, so that nothing stays unread
        time.sleep(0 if has_ended else LOOK_EVERY)


def _unless_stopped(folder: Path, call: Callable[[], None]) -> None:
    """Call it, and where it says that the run is to stop, leave the file that says so to the process."""
    try:
        call()
    except Interrupted:
        (folder / STOP).touch()


def _death(stage: str, code: int, folder: Path, config: AlignConfig) -> str:
    """What is said of a process that ended without an error of its own."""
    if code < 0:
        name = signal.Signals(-code).name
        short = f", as the kernel does where memory is short ({what_helps(stage, config)})"
        why = f"was ended by {name}" + (short if name == "SIGKILL" else "")
    else:
        why = f"ended with exit code {code}"
    words = " ".join((folder / OUTPUT).read_text(encoding="utf-8", errors="replace").split())[-LAST_WORDS:]
    last = f" ({words})" if words else ""
    return f"{stage}: its process {why}{last}; run again to go on from what is kept, or give it more memory"
