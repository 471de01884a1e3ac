"""The accelerators of this host, and one lock for each: two stages never compute on one, of whatever run or home.

A lock belongs to the process that computes, so it is free once that has ended, and the device's memory with it.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alignment.config import AlignConfig
from alignment.errors import ConfigError, StackError
from alignment.stages.plan import Pipeline
from alignment.stages.store import Store

DEVICES = "PLUMBLINE_DEVICES"
"""The devices that stages may use, by their names in CUDA_VISIBLE_DEVICES: `0,1`; without it all there are.

Names of devices that a host does not have simulate them: stages run in processes of their own, and on the CPU.
"""
FOLDER = "plumbline-devices"
LISTED = re.compile(r"^GPU (\d+): .*\(UUID: ([\w-]+)\)", re.MULTILINE)
LOOK_EVERY = 0.5  # seconds between two looks for a device that is taken


@dataclass(frozen=True)
class Bound:
    """The devices that a stage holds, and the open files whose locks it holds them by."""

    names: tuple[str, ...] = ()
    files: tuple[int, ...] = ()


def devices() -> tuple[str, ...]:
    """The names of the devices that stages on this host may use, found without torch; none on a CPU."""
    given = os.environ.get(DEVICES) or os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return tuple(_listed())
    names = dict.fromkeys(name.strip() for name in given.split(","))  # one that is named twice would wait for itself
    return tuple(name for name in names if name not in {"", "-1"})


@cache
def _listed() -> dict[str, str]:
    """What the driver says there is: what each device is called by its number, and by itself."""
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        with suppress(OSError, subprocess.SubprocessError):  # a driver that does not answer, or fails
            listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
            return dict(LISTED.findall(listed.stdout))
    numbers = range(len(list(Path("/dev").glob("nvidia[0-9]*"))))
    return {str(number): str(number) for number in numbers}


def require_devices(stage: str, processes: int, names: Sequence[str]) -> None:
    """Raise ConfigError where a stage asks for more processes than this host has devices; a CPU runs any number."""
    if names and processes > len(names):
        raise ConfigError(
            f"{stage}: dpo.processes = {processes} takes as many devices, and this host has {len(names)} "
            f"({', '.join(names)}): lower dpo.processes, or name more in {DEVICES}"
        )


def require_hosted(pipeline: Pipeline, config: AlignConfig, store: Store) -> None:
    """Raise ConfigError where a stage that is still to be computed takes more devices than this host has."""
    names = devices()
    hosted = [stage for stage in pipeline.wanted(config) if stage.slots(config)]
    short = {stage.name for stage in hosted if stage.processes(config) > len(names)}
    if names and short:
        for item in pipeline.plan(config, store):
            if item.stage.name in short and item.found is None:
                require_devices(item.stage.name, item.stage.processes(config), names)


@contextmanager
def bound(
    count: int,
    names: Sequence[str],
    wanted: Callable[[], None],
    on_wait: Callable[[str], None],
    on_go: Callable[[], None] = lambda: None,
) -> Iterator[Bound]:
    """Hold so many of these devices; where others hold them, tell `on_wait`, and call `wanted` until they are free.

    `on_go` is called once such a wait is over. All or none are held while it waits, so that two stages that each want
    several do not wait for each other.
    """
    told = False
    while True:
        with ExitStack() as held:
            found = _take(held, count, names)
            if len(found.names) == count:
                if told:
                    on_go()
                yield found
                return
        if not told:
            on_wait(f"other stages hold the devices of this host ({', '.join(names)})")
            told = True
        wanted()
        time.sleep(LOOK_EVERY)


def _take(held: ExitStack, count: int, names: Sequence[str]) -> Bound:
    """Lock up to so many devices, the first that are free, until the end of `held`."""
    taken: dict[str, int] = {}
    for name in names:
        if len(taken) == count:
            break
        file = _open(name)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            held.callback(os.close, file)
            taken[name] = file
    return Bound(tuple(taken), tuple(taken.values()))


def _open(name: str) -> int:
    """The file of a device's lock, which every user of this host may lock.

    It is named after the device itself, since a number may be another one's elsewhere, as in the jobs of a Slurm node.
    """
    folder = Path(tempfile.gettempdir()) / FOLDER
    path = folder / f"{_listed().get(name, name).replace(os.sep, '_')}.lock"
    try:
        folder.mkdir(exist_ok=True)
        with suppress(PermissionError):  # another user has made it
            folder.chmod(0o1777)
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StackError(
            f"{path}: the lock of the device {name} cannot be opened ({error.strerror}); delete that folder, or point "
            "TMPDIR at one that you may write"
        ) from error
