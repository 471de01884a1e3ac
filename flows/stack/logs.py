"""Reads the log files of a stack's processes, and selects the lines that `plumbline up` shows in the terminal.

The files keep every line. In the terminal each line is under the name of the run that wrote it; a failure is told once,
and a warning that repeats is counted.
"""

import ast
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 20_000_000  # of one log; then it is copied to `.1` and starts anew
CHUNK = 1_000_000
WINDOW = 60.0  # seconds in which a warning that repeats is counted, and a failure that was told is not told again
ENDS_WITHIN = 2.0  # seconds that the rest of a traceback may take to arrive

START = "%(asctime)s.%(msecs)03d | %(process)d | %(levelname)-7s | "
FORMATS = {
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FORMAT": START + "%(name)s - %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": START + "Flow run %(flow_run_name)r - %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": (
        START + "Flow run %(flow_run_name)r, task %(task_run_name)r - %(message)s"
    ),
}
"""Prefect's formats with the process, and for a task its flow run: what a library logs in a run is told as its own."""

RECORD = re.compile(
    r"\d\d:\d\d:\d\d\.\d+ \| (?:(?P<process>\d+) \| )?(?P<level>[A-Z]+) *\| "
    r"(?:Flow run (?P<quote>['\"])(?P<run>.+?)(?P=quote)(?:, task .+?)?|(?P<logger>\S+)) - (?P<message>.*)"
)
DATED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (?P<message>.+)")
TROUBLE = re.compile(r"\b(?:WARNING|ERROR|CRITICAL)\b")
PAGE = re.compile(r"View at \S+/flow-run/(?P<id>[0-9a-f-]+)")
CRASH = re.compile(r"Reported flow run '(?P<id>[0-9a-f-]+)' as crashed: (?P<reason>.+)")
END = re.compile(r"Finished in state (?P<state>\w+)\((?P<reason>.*)\)$")
CAUSE = re.compile(r"^(?:Flow|Task) run encountered an exception:? \w+: |^Process exited with status code: -?\d+\. ")
RAISED = re.compile(r"[A-Za-z_][\w.]*: .+")
UNEXPLAINED = "Engine execution exited with unexpected exception"  # the reason is the last line of the traceback below
BOOKKEEPING = re.compile(
    r"submitted to infrastructure|deployment (?:pull )?step|Deployment step|All deployment steps|Downloading flow code"
    r"|Beginning flow run|View at|Created task run|Executing |Finished in state Completed\(\)$"
    r"|Created temporary directory '.*' for ephemeral docs site$"
)
TOLD_BY_ANOTHER_LINE = re.compile(
    r"Encountered exception during execution: |Crash detected! "  # before "Finished in state"
    r"|Failed in consume_loop$"  # the database was busy: Prefect tries again, and warns when it drops an event
    r"|Consumer task exited with exception$|The FlowRunCancellingObserver websocket failed with an exception\. "
    r"|Action failed: 'Failed to set state: Run is already in terminal state "  # it had ended by itself
)
PASSING = (  # what mends itself, in plain words
    (
        re.compile(r"Worker channel heartbeat persistence failed: "),
        "the database was busy, and the worker's sign of life was not kept; the worker sends another",
    ),
)


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


class Said(NamedTuple):
    """A line to show: who says it (a run, else a process of the stack), its level, and its text."""

    who: str
    level: str
    message: str


def tidy(source: str, line: str, runs: Mapping[str, str] | None = None) -> Said | None:
    """What a line says to people, or None; `runs` has the run that a process works at, by the process's id.

    Shown are warnings and errors of the servers and the worker, all lines of the receiver, and those of the runs
    without Prefect's bookkeeping. A run's last line gives its state and the reason in plain words.
    """
    found = RECORD.match(line)
    if found is not None:
        level, message = found["level"], found["message"].strip()
        who = found["run"] or (runs or {}).get(found["process"] or "", source)
        if TOLD_BY_ANOTHER_LINE.match(message) or level == "DEBUG":
            return None
        if level == "INFO" and (not found["run"] or BOOKKEEPING.search(message)):
            return None
        if (end := END.match(message)) is not None:
            return Said(who, "ERROR" if end["state"] in {"Failed", "Crashed"} else level, _ending(*end.groups()))
        plain = [words for pattern, words in PASSING if pattern.match(message)]
        return Said(who, "WARNING", plain[0]) if plain else Said(who, level, message)
    if source == "receiver" and (dated := DATED.match(line)):
        return Said(source, "INFO", dated["message"])
    if source != "worker" and TROUBLE.search(line[:80]):
        return Said(source, "WARNING", line.strip())
    return None


def _ending(state: str, reason: str) -> str:
    try:
        words = str(ast.literal_eval(reason))
    except (SyntaxError, ValueError):
        words = reason
    words = " ".join(CAUSE.sub("", words, count=1).split())
    return f"{state}: {words}" if words else state


@dataclass
class _Repeated:
    said: Said
    since: float
    times: int = 0


@dataclass
class _Unexplained:
    who: str
    process: str
    since: float
    raised: str = ""


@dataclass
class Teller:
    """Selects the lines of all logs: a failure is told once, whoever reports it, and what repeats is counted."""

    _runs: dict[str, str] = field(default_factory=dict)
    _processes: dict[str, str] = field(default_factory=dict)
    _failures: dict[str, dict[str, float]] = field(default_factory=dict)
    _repeated: dict[tuple[str, str], _Repeated] = field(default_factory=dict)
    _unexplained: dict[str, _Unexplained] = field(default_factory=dict)

    def hear(self, source: str, line: str, now: float) -> Iterator[Said]:
        """What is to be shown after one more line of a log; `now` in seconds, by any clock that never goes back."""
        found = RECORD.match(line)
        if found is None:
            if source in self._unexplained and RAISED.match(line):
                self._unexplained[source].raised = line.strip()
        else:
            yield from self._explain(source, now)
            process = found["process"] or found["run"] or source
            if found["run"] and found["message"] == UNEXPLAINED:
                who = self._runs.get(process, found["run"])
                self._unexplained[source] = _Unexplained(who, process, now)
                return
            if found["run"]:
                self._runs[process] = found["run"]
            if (page := PAGE.match(found["message"])) is not None:
                self._processes[page["id"]] = process
            if (crash := CRASH.match(found["message"])) is not None:
                process = self._processes.get(crash["id"], crash["id"])
                who = self._runs.get(process, f"run {crash['id']}")
                yield from self._failure(
                    process, Said(who, "ERROR", _ending("Crashed", crash["reason"])), now, report=True
                )
                return
            if END.match(found["message"]) and (end := tidy(source, line)) is not None and end.level == "ERROR":
                yield from self._failure(process, end, now)
                return
        said = tidy(source, line, self._runs)
        if said is not None:
            yield from self._once(said, now)

    def catch_up(self, now: float) -> Iterator[Said]:
        """What is to be shown after some time without a line: how often something repeated, and ends with no reason."""
        for source in [key for key, each in self._unexplained.items() if now - each.since > ENDS_WITHIN]:
            yield from self._explain(source, now)
        for key, each in list(self._repeated.items()):
            if now - each.since < WINDOW:
                continue
            if each.times:
                last = "" if each.times == 1 else ", the last"
                times = "once more" if each.times == 1 else f"{each.times} more times"
                yield Said(each.said.who, each.said.level, f"… {times} in the last minute{last}: {each.said.message}")
                self._repeated[key] = _Repeated(each.said, now)
            else:
                del self._repeated[key]
        self._failures = {key: told for key, told in self._failures.items() if now - max(told.values()) < WINDOW}

    def _once(self, said: Said, now: float) -> Iterator[Said]:
        """A line; where it is a warning or an error that was shown within the last minute, nothing: it is counted."""
        key = (said.who, re.sub(r"\d+(?:\.\d+)?", "#", said.message))
        if said.level == "INFO":
            yield said
        elif key in self._repeated and now - self._repeated[key].since < WINDOW:
            self._repeated[key].times += 1
            self._repeated[key].said = said
        else:
            self._repeated[key] = _Repeated(said, now)
            yield said

    def _failure(self, process: str, said: Said, now: float, *, report: bool = False) -> Iterator[Said]:
        """A failure, unless its process told the same one; a report by others, unless its process told any."""
        told = self._failures.setdefault(process, {})
        if not any((report or message == said.message) and now - at < WINDOW for message, at in told.items()):
            yield said
        told[said.message] = now

    def _explain(self, source: str, now: float) -> Iterator[Said]:
        """A run that ended without saying why, with the last line of its traceback."""
        ended = self._unexplained.pop(source, None)
        if ended is not None:
            reason = " ".join(ended.raised.partition(": ")[2].split()) or UNEXPLAINED
            said = Said(ended.who, "ERROR", f"Failed: {reason}")
            yield from self._failure(ended.process, said, now, report=True)
