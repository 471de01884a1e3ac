"""Which finished stages the running processes use: a file a process, so that nobody deletes what another reads."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

FOREIGN_DAYS = 7.0  # after which what another host's process left is taken for dead; it cannot be asked


class Marks:
    """Files below a folder, named HOST@PID, with a line `stage/key` for each stage that the process has found."""

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
            with (self.root / f"{socket.gethostname()}@{pid}").open("a", encoding="utf-8") as stream:
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


def is_alive(pid: int) -> bool:
    """Whether a process of this host has this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def of_dead_process(file: Path, host: str, pid: str) -> bool:
    """Whether a file is of a process that died; of another host's it is taken for so after a week."""
    with suppress(OSError, ValueError):
        if host == socket.gethostname():
            return not is_alive(int(pid))
        return time.time() - file.stat().st_mtime > FOREIGN_DAYS * 86_400
    return False
