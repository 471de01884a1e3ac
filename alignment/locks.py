"""One process at a time, by a lock on a file: the lock of a process that died is free."""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

LOCK_POLL = 0.2  # seconds between two looks at another process's lock


@contextmanager
def alone(path: Path, why: str, wanted: Callable[[], None] = lambda: None, level: int = logging.INFO) -> Iterator[None]:
    """Hold the lock `path` for as long as the context lasts; one thread of one process does, the others wait.

    Who waits says once, at `level`, `why`, and calls `wanted` now and then, which may raise. The file is deleted at
    the end. Raises OSError where it cannot be made.
    """
    waiting = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            if _acquire(file, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        if not waiting:
            logger.log(level, "%s; waiting for it", why)
            waiting = True
        wanted()
        time.sleep(LOCK_POLL)


def _acquire(file: IO[str], path: Path) -> bool:
    """Lock the file, unless another holds it or its last holder has deleted it meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False
