"""Where and how exactly a model computes: device, CPU threads, kept memory, and the rounding of matrix products."""

import ctypes
import logging
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any
from weakref import WeakSet

logger = logging.getLogger(__name__)

SMALL_MODEL = 1_000_000  # parameters
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h

_rounding: WeakSet[Any] = WeakSet()
_on_cpu: ContextVar[bool] = ContextVar("_on_cpu", default=False)


@contextmanager
def on_cpu() -> Iterator[None]:
    """Have the models that are loaded inside compute on the CPU, so that they need no accelerator to be free."""
    token = _on_cpu.set(True)
    try:
        yield
    finally:
        _on_cpu.reset(token)


def device() -> Any:
    """The accelerator where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if not _on_cpu.get() and torch.cuda.is_available() else "cpu")


def place(model: Any) -> Any:
    """The model on its device, and as many CPU threads as its size is worth; products of fp32 are exact there."""
    import torch

    # 60 training steps of 0.5M parameters: 12.8 s and 12.6 CPU seconds on one thread; 9.1 s and 14.2 on two that have
    # their cores to themselves, but 87 CPU seconds on two that share them: they spin between operations this short.
    threads = _threads_at_start()
    _allow((torch.backends.cuda.matmul, torch.backends.cudnn), (False, False))
    keep_freed_memory()
    torch.set_num_threads(1 if sum(weight.numel() for weight in model.parameters()) < SMALL_MODEL else threads)
    return model.to(device())


@contextmanager
def products(*, rounded: bool) -> Iterator[None]:
    """Have a GPU's matrix products and convolutions of fp32 rounded to TF32 meanwhile, or exact, whatever was set."""
    import torch

    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [kind.allow_tf32 for kind in kinds]
    _allow(kinds, [rounded] * len(kinds))
    try:
        yield
    finally:
        _allow(kinds, before)


@contextmanager
def rounding(precision: str) -> Iterator[None]:
    """Have models compute as a training in this precision does: bf16 by autocast, TF32 in a GPU's products."""
    import torch

    kind = device().type
    with products(rounded=precision == "tf32"), torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
        yield


def compute_in(model: Any, precision: str, field: str) -> Any:
    """A placed model as it computes in a precision; `field` is where the configuration asks for it."""
    if precision == "bf16":
        warn_of_bf16(field)
        return model.bfloat16()
    if precision == "tf32" and model.device.type == "cuda":
        round_products(model)
    return model


def round_products(model: Any) -> None:
    """Have a GPU round the products of this model's forward passes to TF32, and of no other's."""
    entered: list[Any] = []

    def enter(*_: Any) -> None:
        entered.append(products(rounded=True))
        entered[-1].__enter__()

    def leave(*_: Any) -> None:
        entered.pop().__exit__(None, None, None)

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(leave, always_call=True)
    _rounding.add(model)


def is_exact(model: Any) -> bool:
    """Whether a model's forward pass is fp32 throughout, as things are."""
    import torch

    weight = next(model.parameters())
    kind = weight.device.type
    rounded = torch.is_autocast_enabled(kind) or (kind == "cuda" and torch.backends.cuda.matmul.allow_tf32)
    return model not in _rounding and weight.dtype == torch.float32 and not rounded


@cache
def warn_of_bf16(field: str) -> None:
    """Say once that a CPU without instructions for bf16 is slow at it; `field` is where the configuration asks."""
    import torch

    instructions = torch.cpu.get_capabilities()
    if device().type == "cpu" and not any(there for name, there in instructions.items() if "bf16" in name):
        logger.warning(
            "%s: bf16 takes 4 to 7 times as long as fp32 on this CPU, which has no instructions for it; take fp32",
            field,
        )


def _allow(kinds: Any, values: Any) -> None:
    for kind, value in zip(kinds, values, strict=True):
        kind.allow_tf32 = value


@cache
def keep_freed_memory() -> None:
    """Let glibc keep the memory that a step frees for the next one, which takes the same again.

    It returns blocks of this size to the system otherwise: a tenth of the time of a small model's training.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the largest that it takes
        mallopt(M_TRIM_THRESHOLD, -1)


@cache
def _threads_at_start() -> int:
    import torch

    return torch.get_num_threads()
