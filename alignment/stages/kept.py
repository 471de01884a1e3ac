"""The base model, kept in memory between the stages that only read it."""

from pathlib import Path
from typing import TYPE_CHECKING

from alignment.rows import MODEL
from alignment.stages.job import Job

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded

_kept: "dict[tuple[Path, str, str], Loaded]" = {}
"""One at most, so that shards do not load it again and again."""


def base_model(job: Job, precision: str = "fp32") -> "Loaded":
    """The base model of the stages that only read it, placed anew: another model may have set the threads since.

    One that was kept in another precision is let go first.
    """
    from alignment.device import place
    from alignment.models import load_base

    wanted = job.inputs["base"] / MODEL, precision, _name(job)
    if wanted not in _kept:
        forget_base()
        _kept[wanted] = load_base(wanted[0], precision=precision, name=_name(job))
    place(_kept[wanted].model)
    return _kept[wanted]


def forget_base() -> None:
    """Let the kept base model go, before another model needs the memory."""
    _kept.clear()


def _name(job: Job) -> str:
    return f"base.model {job.config.base.model}"
