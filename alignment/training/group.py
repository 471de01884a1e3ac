"""The processes that train together: which of them this one is, and what all of them agree on.

Where there is one process alone, nothing is asked of another.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from alignment.device import device

Found = TypeVar("Found")

PATIENCE = timedelta(hours=12)
"""How long a process waits for another that still computes; one that has died ends the group at once."""


def join() -> None:
    """Meet the other processes that `torch.distributed.run` has started, and take the device that is this one's."""
    if device().type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)


def size() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Whether it is the one that writes what all have made."""
    return rank() == 0


def any_of_all(flag: bool) -> bool:
    """Whether any of them says so."""
    return flag if size() == 1 else bool(sum_of_all(torch.tensor(int(flag))))


def sum_of_all(values: Tensor) -> Tensor:
    """The sum of what each of them has, on the CPU."""
    found = values.detach().cpu()
    if size() > 1:
        dist.all_reduce(found)
    return found


def means_of_all(values: Tensor) -> list[float]:
    """The means of K figures [K, B] over all that the processes have, of each its own B."""
    if size() == 1:
        return list(values.mean(1).tolist())
    sums = torch.cat([values.double().sum(1), values.new_full((1,), values.shape[1], dtype=torch.float64)])
    *found, count = sum_of_all(sums).tolist()
    return [value / count for value in found]


def wait() -> None:
    """Go on once all of them have come here."""
    any_of_all(False)


def first_then_others(call: Callable[[], Found]) -> Found:
    """What a function returns, which the first process has called before the others do."""
    if not is_first():
        wait()
    found = call()
    if is_first():
        wait()
    return found
