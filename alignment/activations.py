"""GELU in one kernel, where a model's code spells its approximation by tanh out in eight operations, as GPT-2 does."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.activations import FastGELUActivation, NewGELUActivation

SPELT_OUT = (NewGELUActivation, FastGELUActivation)


@contextmanager
def one_kernel(model: Any) -> Iterator[None]:
    """Put the kernel, equal but for rounding, in the place of each such activation; the model's own are back after.

    They are a tenth of the time of a small GPT-2's training, and keep seven times as many values for the backward pass.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) in SPELT_OUT
    ]
    for parent, name, _ in found:
        setattr(parent, name, nn.GELU(approximate="tanh"))
    try:
        yield
    finally:
        for parent, name, child in found:
            setattr(parent, name, child)
