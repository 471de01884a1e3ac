"""Reads the log files of a stack's processes, and selects the lines that `plumbline up` shows in the terminal."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 20_000_000  # of one log; then it is copied to `.1` and starts anew
CHUNK = 1_000_000

PREFECT = re.compile(
    r"(?P<time>\d\d:\d\d:\d\d)\.\d+ \| (?P<level>[A-Z]+) *\| "
    r"(?:(?:Flow|Task) run '(?P<run>[^']+)'|(?P<logger>\S+)) - (?P<message>.*)"
)
DATED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (?P<message>.+)")
TROUBLE = re.compile(r"\b(?:WARNING|ERROR|CRITICAL)\b")
NOISE = re.compile(
    r"submitted to infrastructure|deployment (?:pull )?step|Deployment step|All deployment steps|Downloading flow code"
    r"|Beginning flow run|View at|Created task run|Executing |Finished in state Completed\(\)$"
)
TRIED_AGAIN = "Failed in consume_loop"  # SQLite was busy; Prefect tries again, and warns when it drops an event


class Log:
    """The log file of one process, which appends to it."""

    def __init__(self, path: Path) -> None:
        """Start an empty file; the one before is kept as `.1`."""
        self.path = path
        self._read = 0
        self._rest = b""
        if path.exists():
            path.replace(path.with_name(f"{path.name}.1"))
        path.touch()

    def lines(self) -> Iterator[str]:
        """The complete lines that were added since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            while chunk := file.read(CHUNK):
                self._read += len(chunk)
                *whole, self._rest = (self._rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
        if self._read > MAX_BYTES:
            shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
            with self.path.open("r+b") as file:  # the process goes on appending to it
                file.truncate(0)
            self._read = 0


def tidy(source: str, line: str) -> tuple[str, str, str] | None:
    """(who, level, message) of a line to show, else None; `who` is the name of the run that wrote it, or `source`.

    Shown are warnings and errors of the servers and the worker, all lines of the receiver, and those of the runs
    without Prefect's bookkeeping.
    """
    found = PREFECT.match(line)
    if found is not None:
        level, message = found["level"], found["message"].strip()
        if level == "DEBUG" or (level == "INFO" and (not found["run"] or NOISE.search(message))):
            return None
        if message == TRIED_AGAIN:
            return None
        return found["run"] or source, level, message
    if source == "receiver" and (dated := DATED.match(line)):
        return source, "INFO", dated["message"]
    if source != "worker" and TROUBLE.search(line[:80]):
        return source, "WARNING", line.strip()
    return None
