"""What is said of a stage for which the memory was too small: what it needs, and the fields that help."""

from collections.abc import Iterator
from contextlib import contextmanager

from alignment import capacity, needs, savings
from alignment.batching import is_out_of_memory
from alignment.config import AlignConfig
from alignment.errors import ModelError, OutOfMemoryError


@contextmanager
def told_of(stage: str, config: AlignConfig) -> Iterator[None]:
    """Turn what torch, or who heard it of torch, raises where memory is short into one OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(shortage(stage, config)) from error


def shortage(stage: str, config: AlignConfig) -> str:
    """One line: the stage, the device, what the stage needs by the estimate, and three fields that make it less."""
    return f"{stage}: the memory of {capacity.device().told} is too small; {what_helps(stage, config)}"


def what_helps(stage: str, config: AlignConfig) -> str:
    """What a stage needs by the estimate, where its model's shape is known, and the three fields."""
    device = capacity.device()
    try:
        shapes = capacity.shapes(config)
    except ModelError:
        shapes = {}
    needed = needs.need(stage, config, shapes, device.kind)
    about = "" if needed is None else f"it needs about {needed.told}: "
    return f"{about}{savings.advice(stage, config, shapes, device.kind, size=device.size, cards=capacity.cards())}"
