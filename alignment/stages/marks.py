"""Which finished stages the running processes use: a file a process, so that nobody deletes what another reads."""

import os
import socket
import time
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

FOREIGN_DAYS = 7.0  # after which what another host's process left is taken for dead; it cannot be asked


class Marks:
    """Files below a folder, named after a process, with a line `stage/key` for each stage that it has found."""

    def __init__(self, root: Path) -> None:
        """Nothing is made before the first mark."""
        self.root = root
        self._noted: set[tuple[int, str]] = set()

    def note(self, stage: str, key: str) -> None:
        """This process uses a stage. Where the disk takes no file nobody can delete anything either."""
        name, pid = f"{stage}/{key}", os.getpid()
        if (pid, name) in self._noted:
            return
        self._noted.add((pid, name))
        with suppress(OSError):
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / this_process()).open("a", encoding="utf-8") as stream:
                stream.write(f"{name}\n")

    def alive(self) -> set[tuple[str, str]]:
        """Stage and key of what running processes have noted; the marks of dead ones are deleted."""
        found: set[tuple[str, str]] = set()
        for mark in self.root.glob("*@*"):
            with suppress(OSError):
                if of_dead_process(mark, *mark.name.rsplit("@", 1)):
                    mark.unlink()
                    continue
                lines = mark.read_text(encoding="utf-8").splitlines()
                found.update((stage, key) for stage, _, key in (line.partition("/") for line in lines))
        return found


@cache
def this_host() -> dict[str, str]:
    """What tells where a process number means the same process: name and start of the host, namespace of numbers.

    Containers may share the name, and machines of a cluster as well.
    """
    boot, space = "", ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return {"host": socket.gethostname(), "boot": boot, "space": space}


def this_process() -> str:
    """HOST.HASH@PID, which names this process among those of all hosts; the hash is of boot and namespace."""
    return f"{_host_name()}@{os.getpid()}"


def _host_name() -> str:
    host = this_host()
    return f"{host['host']}.{sha256(' '.join(host.values()).encode()).hexdigest()[:12]}"


def is_alive(pid: int) -> bool:
    """Whether a process of this host has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def is_dead(host: str, pid: str, written: float) -> bool:
    """Whether the process of this name died; one that cannot be asked is taken for dead a week after `written`.

    That is one of another host or container, and one whose name is of the old form HOST@PID, which does not tell.
    """
    if host == _host_name() and pid.isdecimal():
        return not is_alive(int(pid))
    return time.time() - written > FOREIGN_DAYS * 86_400


def of_dead_process(file: Path, host: str, pid: str) -> bool:
    """Whether a file is of a process that died; see `is_dead`."""
    with suppress(OSError):
        return is_dead(host, pid, file.stat().st_mtime)
    return False
