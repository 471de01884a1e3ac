"""Hides the environment variables by which a training would compute other numbers than the configuration says."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

logger = logging.getLogger(__name__)

TRAINER = re.compile(  # what accelerate and transformers read when a trainer is made, and while it trains
    r"(ACCELERATE|FSDP|MEGATRON_LM|PARALLELISM_CONFIG|TORCHELASTIC|KUBEFLOW_TRAINER|SMDATAPARALLEL)_.+"
    r"|(LOCAL_|GROUP_|ROLE_|NODE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|MASTER_(ADDR|PORT)|NPROC|FORK_LAUNCHED"
    r"|(PMI|OMPI_COMM_WORLD|MV2_COMM_WORLD)_(LOCAL_)?(RANK|SIZE)|MPI_LOCALN?RANK(ID|S)"
    r"|SM_(HP_MP_PARAMETERS|FRAMEWORK_PARAMS)|XLA_(USE|DOWNCAST)_BF16"
)
PROCESS = re.compile(  # what torch and the libraries below it read once, to compute fp32 in fewer bits
    r"NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE|HIPBLASLT_ALLOW_TF32|CUBLAS_EMULAT\w+"
    r"|(ONEDNN|DNNL)_DEFAULT_FPMATH_MODE|PYTORCH_MPS_FAST_MATH"
)

GROUP = re.compile(r"((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|TORCHELASTIC_.+)")
"""What `torch.distributed.run` tells each process of a group."""
PROCESSES = "PLUMBLINE_PROCESSES"
"""How many processes this one computes a stage with, itself included: set by who started them."""

_lock = Lock()
_trainings = 0
_hidden: dict[str, str] = {}
_dropped: set[str] = set()


@contextmanager
def configuration_alone() -> Iterator[None]:
    """Hide from a trainer what would overrule its arguments; afterwards the environment is what it was before.

    What the libraries themselves write there is undone as well. One warning names what is set and not used. A process
    of a group that was started to train together keeps what it knows of that group.
    """
    global _trainings, _hidden
    with _lock:
        if _trainings == 0:
            _hidden = _take(TRAINER)
        _trainings += 1
        unused = sorted(_hidden.keys() | _dropped)
    if unused:
        _warn(", ".join(unused))
    try:
        yield
    finally:
        with _lock:
            _trainings -= 1
            if _trainings == 0:
                _take(TRAINER)
                os.environ.update(_hidden)


def drop_overrides() -> None:
    """Take the precision's overrides from this process and its children for good; call it before torch is imported."""
    _dropped.update(_take(PROCESS))


def dropped() -> list[str]:
    """The names that `drop_overrides` has found."""
    return sorted(_dropped)


def _take(names: re.Pattern[str]) -> dict[str, str]:
    is_in_group = os.environ.get(PROCESSES, "1") != "1"
    found = [name for name in os.environ if names.fullmatch(name) and not (is_in_group and GROUP.fullmatch(name))]
    return {name: os.environ.pop(name) for name in found}


@cache
def _warn(names: str) -> None:
    logger.warning(
        "not used: %s of the environment; the config alone names the processes of a training and its precision", names
    )
