"""A job as a JSON file, for a process of its own, and what that process leaves: events, counts, or an error."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from alignment.config import AlignConfig
from alignment.config.frontier import PointConfig
from alignment.errors import PlumblineError, ProcessError, kind_of_error
from alignment.stages.files import write_json
from alignment.stages.job import Counts, Job
from alignment.stages.stage import Stage
from alignment.transient import is_transient

JOB, EVENTS, COUNTS, STOP = "job.json", "events.jsonl", "counts.json", "stop"
"""In the folder that passes between the two: written by who asks, by who computes (two), by who asks."""
END = "end"
"""The kind of the last event of a job, with its exit code."""

PACKAGES = ("alignment.", "expectations.")
CONFIGS: Mapping[str, type[AlignConfig]] = {"run": AlignConfig, "frontier": PointConfig}


def write_job(folder: Path, stage: Stage, job: Job) -> None:
    """Write what the process needs; its progress and its rows come back as events."""
    write_json(
        folder / JOB,
        {
            "stage": {"module": stage.module, "name": stage.name},
            **config_as_json(job.config),
            "inputs": job.inputs,
            "digests": job.digests,
            **{name: getattr(job, name) for name in ("out", "work", "kept", "read", "part", "parts", "counted")},
        },
    )


def config_as_json(config: AlignConfig) -> dict[str, Any]:
    """A configuration for another process: its kind, and its values."""
    kind = "frontier" if isinstance(config, PointConfig) else "run"
    return {"kind": kind, "config": config.model_dump(mode="json")}


def config_of_json(kind: str, config: Mapping[str, Any]) -> AlignConfig:
    """The configuration that `config_as_json` gave; raises KeyError or ValueError for what it did not."""
    return CONFIGS[kind].model_validate(config)


def read_job(folder: Path, **functions: Any) -> tuple[Stage, Job]:
    """The stage and its job, with `progress` and `on_row` as given."""
    found = json.loads((folder / JOB).read_text(encoding="utf-8"))
    module, name = found["stage"]["module"], found["stage"]["name"]
    if not module.startswith(PACKAGES):
        raise ValueError(f"{folder / JOB}: {module} holds no stage")
    stage = getattr(import_module(module), name)
    if not isinstance(stage, Stage):
        raise ValueError(f"{folder / JOB}: {module}.{name} is no stage")
    return stage, Job(
        config=config_of_json(found["kind"], found["config"]),
        inputs={name: Path(path) for name, path in found["inputs"].items()},
        digests=found["digests"],
        out=Path(found["out"]),
        work=Path(found["work"]),
        kept=Path(found["kept"]),
        read=found["read"],
        part=tuple(found["part"]),
        parts=tuple(map(Path, found["parts"])),
        counted=found["counted"],
        **functions,
    )


class Events:
    """The events of one process, a line each, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        """Lines go to the end of the file."""
        self._file = (folder / EVENTS).open("a", encoding="utf-8")

    def tell(self, kind: str, *values: Any) -> None:
        """Write one line at once."""
        self._file.write(json.dumps([kind, *values], default=str) + "\n")
        self._file.flush()


def followed(folder: Path) -> Iterator[list[list[Any]]]:
    """The events that are new since the last look, at each look; a line that is not whole is left for the next one."""
    path, rest = folder / EVENTS, b""
    path.touch()
    with path.open("rb") as file:
        while True:
            *lines, rest = (rest + file.read()).split(b"\n")
            yield [json.loads(line) for line in lines]


def write_error(folder: Path, error: BaseException, rank: int, *, at: float = 0.0) -> None:
    """Leave what ended a process of this rank, now or at a time, so that `read_error` can give the same to another."""
    import traceback

    draft = folder / f".error-{rank}.json"
    write_json(
        draft,
        {
            "type": type(error).__name__,
            "message": str(error) if isinstance(error, PlumblineError) else " ".join(str(error).split()),
            "errno": error.errno if isinstance(error, OSError) else None,
            "file": str(error.filename or "") if isinstance(error, OSError) else "",
            "transient": is_transient(error),
            "traceback": "".join(traceback.format_exception(error)),
            "at": at or time.time(),
        },
    )
    draft.rename(folder / f"error-{rank}.json")


def read_error(folder: Path, stage: str) -> BaseException | None:
    """What ended the process, of several the one that was first: of our tree and of the operating system the same.

    Anything else is a ProcessError that names it. None where no process said anything.
    """
    found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("error-*.json")]
    if not found:
        return None
    first = min(found, key=lambda error: float(error["at"]))
    made: BaseException
    if kind := kind_of_error(first["type"]):
        made = kind(first["message"])
    elif first["errno"] is not None:
        made = OSError(first["errno"], os.strerror(first["errno"]), first["file"] or None)
    else:
        made = ProcessError(f"{stage}: {first['type']}: {first['message']}")
    if isinstance(made, PlumblineError):
        made.transient = first["transient"]
    made.add_note(f"in the process of {stage}:\n{first['traceback']}")
    return made


def write_counts(folder: Path, counts: Counts) -> None:
    """Leave the counts of a stage that is finished."""
    write_json(folder / COUNTS, counts)


def read_counts(folder: Path) -> Counts | None:
    """The counts of a finished stage; None where it is not."""
    path = folder / COUNTS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
