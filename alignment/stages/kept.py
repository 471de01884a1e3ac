"""One model, kept in memory between the stages and shards that only read it."""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from alignment.rows import MODEL
from alignment.stages.job import Job

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded

_kept: "dict[tuple[Path, str, str], Loaded]" = {}
_alone = Lock()
"""Held while one is read: transformers mixes up two that are read at once, and it would be there twice."""


def base_model(job: Job, field: str) -> "Loaded":
    """The base model of the stages that only read it, in the precision that a field of the configuration names.

    Another model that was kept is let go first.
    """
    from alignment.models import load_base

    folder, name = job.inputs["base"] / MODEL, f"base.model {job.config.base.model}"
    precision = precision_of(job, field)
    return _one(folder, precision, name, lambda: load_base(folder, precision=precision, field=field, name=name))


def precision_of(job: Job, field: str) -> str:
    """The value of a field such as `sampling.precision`."""
    group, _, name = field.partition(".")
    return str(getattr(getattr(job.config, group), name))


def reward_model(folder: Path, precision: str, name: str) -> "Loaded":
    """The classifier of a folder, which errors call `name`; another model that was kept is let go first."""
    from alignment.models import load_reward

    return _one(folder, precision, name, lambda: load_reward(folder, precision=precision, name=name))


def forget_model() -> None:
    """Let the kept model go, before another one needs the memory."""
    _kept.clear()


def _one(folder: Path, of: str, name: str, load: "Callable[[], Loaded]") -> "Loaded":
    """The model, placed anew: another one may have set the threads since."""
    from alignment.device import place

    key = folder, of, name
    with _alone:
        if key not in _kept:
            forget_model()
            _kept[key] = load()
        found = _kept[key]
    place(found.model)
    return found
