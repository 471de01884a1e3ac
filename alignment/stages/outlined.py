"""The base model without its weights, for the stages that need nothing but its tokenizer and conventions."""

from typing import TYPE_CHECKING

from alignment.rows import MODEL
from alignment.stages.job import Job

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded


def base_outline(job: Job) -> "Loaded":
    """What tokenises, decodes and has the conventions of the base model, and computes nothing."""
    from alignment.outline import outline

    return outline(str(job.inputs["base"] / MODEL), name=f"base.model {job.config.base.model}")
