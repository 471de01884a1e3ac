"""The base model, kept in memory between the stages that only read it."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.rows import MODEL
from alignment.stages.job import Job

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded


def base_model(job: Job, precision: str = "fp32") -> "Loaded":
    """The base model of the stages that only read it, placed anew: another model may have set the threads since."""
    from alignment.device import place

    loaded = _kept_base(job.inputs["base"] / MODEL, precision, f"base.model {job.config.base.model}")
    place(loaded.model)
    return loaded


def forget_base() -> None:
    """Let the kept base model go, before a training needs the memory."""
    _kept_base.cache_clear()


@lru_cache(maxsize=1)
def _kept_base(folder: Path, precision: str, name: str) -> "Loaded":
    """One base model is kept, so that shards do not load it again and again."""
    from alignment.models import load_base

    return load_base(folder, precision=precision, name=name)
