"""Counts of what the stages of this home did, kept in a file of it.

A run is a process that ends, so that nobody can ask it for its metrics afterwards: it adds to the file, and who lives
longer shows it, as the webhook receiver does to Prometheus. What cannot be counted is left out, and no run fails by it.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment.errors import Interrupted
from alignment.locks import alone
from tasks.home import home
from tasks.progress import Event

logger = logging.getLogger("plumbline")

Counts = dict[str, dict[str, float]]
"""By metric, and then by stage."""

_waits: dict[str, float] = {}  # since when each stage of this process waits


def counted() -> Counts:
    """All counts of this home so far; empty where there are none that can be read."""
    try:
        found: Counts = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def count(stage: str, **amounts: float) -> None:
    """Add to counts of a stage, each by its metric's name; many processes may do so at once."""
    file = _file()
    try:
        with alone(file.with_suffix(".lock"), f"another process counts in {file}", level=logging.DEBUG):
            found = counted()
            for metric, amount in amounts.items():
                of_metric = found.setdefault(metric, {})
                of_metric[stage] = of_metric.get(stage, 0.0) + amount
            draft = file.with_name(f".{file.name}.{os.getpid()}")
            draft.write_text(json.dumps(found), encoding="utf-8")
            draft.replace(file)
    except OSError as error:
        logger.debug("%s: %s is not counted (%s)", file, stage, error)


def note(event: Event) -> None:
    """Count what an event tells: a stage that was computed or found, and how long it waited for a GPU slot.

    The seconds of a stage are those of its parts as well, so these are not counted again.
    """
    stage, _, part = event.stage.partition(" ")
    if event.kind == "waiting":
        _waits.setdefault(event.stage, time.monotonic())
        return
    if (since := _waits.pop(event.stage, None)) is not None:
        count(stage, waits=1, wait_seconds=time.monotonic() - since)
    if event.kind == "cached" and not part:
        count(stage, found=1)
    elif event.kind == "computed" and not part:
        count(stage, computed=1, seconds=event.ref.seconds if event.ref else 0.0)


@contextmanager
def failures_counted(stage: str) -> Iterator[None]:
    """Count an error that ends the context as a failure of the stage, unless the run was asked to stop."""
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        count(stage, failed=1)
        raise


def _file() -> Path:
    return home() / "stack" / "stages.json"
