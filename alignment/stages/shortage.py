"""What is said of a stage for which the memory was too small: what it needs, and the fields that help."""

from collections.abc import Iterator
from contextlib import contextmanager

from alignment import capacity, needs, savings
from alignment.batching import is_out_of_memory
from alignment.config import AlignConfig
from alignment.errors import ModelError, OutOfMemoryError


@contextmanager
def told_of(stage: str, config: AlignConfig, *, on_cpu: bool = False) -> Iterator[None]:
    """Turn what torch, or who heard it of torch, raises where memory is short into one OutOfMemoryError.

    `on_cpu` is for a stage that uses no GPU, though there be one.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(shortage(stage, config, on_cpu=on_cpu)) from error


def shortage(stage: str, config: AlignConfig, *, on_cpu: bool = False) -> str:
    """One line: the stage, the device, what the stage needs by the estimate, and three fields that make it less."""
    device = capacity.machine() if on_cpu else capacity.device()
    return f"{stage}: the memory of {device.told} is too small; {what_helps(stage, config, device)}"


def what_helps(stage: str, config: AlignConfig, device: capacity.Device | None = None) -> str:
    """What a stage needs by the estimate, where its model's shape is known, and the three fields."""
    device = device or capacity.device()
    try:
        shapes = capacity.shapes(config)
    except ModelError:
        shapes = {}
    needed = needs.need(stage, config, shapes, device.kind)
    about = "" if needed is None else f"it needs about {needed.told}: "
    return f"{about}{savings.advice(stage, config, shapes, device.kind, size=device.size, cards=capacity.cards())}"
