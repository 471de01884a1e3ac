"""Computes a stage in a process of its own, or in a group of them, with the devices that it may use and no others.

Its memory is free once the process has ended. It writes where this one says, ends with it, and tells by files how far
it is; the lock of the stage, its key and its place in the store stay here.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from alignment.config import AlignConfig
from alignment.environment import PROCESSES
from alignment.errors import Interrupted, ProcessError
from alignment.passed_on import passed_on
from alignment.stages.job import Counts, Job
from alignment.stages.job_file import END, STOP, followed, read_counts, read_error, write_job
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
) -> Counts:
    """Fill a job's folder in another process, or in a group of so many, that ends with it. See `Worker`."""
    with Worker(devices, processes) as worker:
        return worker.compute(stage, job, wanted)


class Worker:
    """A process that computes one job after the other; a group of them computes one, and is started anew for the next.

    What it has loaded for a job it need not load for the next one. It sees the `devices` alone, by their names in
    CUDA_VISIBLE_DEVICES; without any, the environment decides. The file descriptors `keep_open` stay open for as long
    as it lives, and so do locks on them. It ends where this is left, and once a job has failed. The thread that gives
    it its first job has to outlive it: to the kernel it is the parent with which it ends.
    """

    def __init__(self, devices: Sequence[str] = (), processes: int = 1, keep_open: Sequence[int] = ()) -> None:
        """Nothing is started yet."""
        self._environment = environment(devices, processes)
        self._keep_open = tuple(keep_open)
        self._child: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed where this is left

    def __enter__(self) -> "Worker":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Have the process end."""
        self._end(in_time=True)
        self._output.close()

    def compute(self, stage: Stage, job: Job, wanted: Callable[[], None] = lambda: None) -> Counts:
        """Fill a job's folder; returns the counts.

        `wanted` is called all the time, and raises Interrupted to stop the work: a training first keeps a checkpoint.
        Raises what ended the job, as it would be raised here, and ProcessError where the process was killed, or failed
        in a way of its own.
        """
        folder, before = job.scratch / "process", os.fstat(self._output.fileno()).st_size
        with _alone(job.work, wanted):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_job(folder, stage, job)
            try:
                code = _follow(self._given(folder), folder, job, wanted)
            except BaseException:  # an error here, or a second Ctrl-C
                self._end()
                raise
            counts = read_counts(folder)
            if counts is None or code:
                self._end(in_time=True)
                raise read_error(folder, stage.name) or ProcessError(
                    _death(stage.name, code, self._words(before), job.config)
                )
        shutil.rmtree(folder, ignore_errors=True)
        return counts

    def _given(self, folder: Path) -> "subprocess.Popen[bytes]":
        """The process, which has been given a folder; in a session of its own: Ctrl-C is a stop to it and no signal."""
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            self._child = subprocess.Popen(  # noqa: S603 - this interpreter and this module
                [sys.executable, "-m", "alignment.stages.worker", str(folder)],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self._keep_open,
            )
            return self._child
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # it has died meanwhile, which is found where it is followed
            self._child.stdin.write(json.dumps(str(folder)).encode() + b"\n")
            self._child.stdin.flush()
        return self._child

    def _end(self, *, in_time: bool = False) -> None:
        """Have the process end, by itself where it has the time to, and see that it has."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.close()
        if in_time:
            with suppress(subprocess.TimeoutExpired):
                child.wait(DYING)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def _words(self, before: int) -> str:
        """The last that the process wrote after so many bytes, on one line."""
        file, size = self._output.fileno(), os.fstat(self._output.fileno()).st_size
        found = os.pread(file, 4 * LAST_WORDS, max(before, size - 4 * LAST_WORDS))
        return " ".join(found.decode(errors="replace").split())[-LAST_WORDS:]


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


def _follow(child: "subprocess.Popen[bytes]", folder: Path, job: Job, wanted: Callable[[], None]) -> int:
    """Pass on what the process tells until the job or itself has ended; returns the exit code.

    Asked to stop, have it stop, and wait for that.
    """
    has_died = False
    for events in followed(folder):
        for kind, *values in events:
            if kind == "log":
                name, level, message = values
                logging.getLogger(name).log(level, "%s", message)
            elif kind == "row" and job.on_row is not None:
                job.on_row(*values)
            elif kind == "progress":
                _unless_stopped(folder, partial(job.progress, *values))
            elif kind == END:
                return int(values[0])
        _unless_stopped(folder, wanted)
        if has_died and not events:
            break
        has_died = child.poll() is not None  # before the next look, so that nothing stays unread
        time.sleep(0 if has_died else LOOK_EVERY)
    return int(child.returncode)


def _unless_stopped(folder: Path, call: Callable[[], None]) -> None:
    """Call it, and where it says that the run is to stop, leave the file that says so to the process."""
    try:
        call()
    except Interrupted:
        (folder / STOP).touch()


def _death(stage: str, code: int, words: str, config: AlignConfig) -> str:
    """What is said of a process that ended without an error of its own."""
    if code < 0:
        name = signal.Signals(-code).name
        short = f", as the kernel does where memory is short ({what_helps(stage, config)})"
        why = f"was ended by {name}" + (short if name == "SIGKILL" else "")
    else:
        why = f"ended with exit code {code}"
    last = f" ({words})" if words else ""
    return f"{stage}: its process {why}{last}; run again to go on from what is kept, or give it more memory"
