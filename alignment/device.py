"""Where a model computes: its device, the CPU threads that its size is worth, and the memory that is kept for it."""

import ctypes
import platform
import sys
from functools import cache
from typing import Any

SMALL_MODEL = 1_000_000  # parameters
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def device() -> Any:
    """The accelerator where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def place(model: Any) -> Any:
    """The model on its device, and as many CPU threads as its size is worth."""
    import torch

    # 60 training steps of 0.5M parameters: 12.8 s and 12.6 CPU seconds on one thread; 9.1 s and 14.2 on two that have
    # their cores to themselves, but 87 CPU seconds on two that share them: they spin between operations this short.
    threads = _threads_at_start()
    keep_freed_memory()
    torch.set_num_threads(1 if sum(weight.numel() for weight in model.parameters()) < SMALL_MODEL else threads)
    return model.to(device())


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
