"""Checkpoints without pickles: optimiser and random state as safetensors and JSON, and the last whole one to use."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from alignment.adapters import WEIGHTS as ADAPTER
from alignment.training import group
from alignment.training.sharding import like, whole

logger = logging.getLogger(__name__)

TENSORS, PLAIN = "optimizer.safetensors", "optimizer.json"
RANDOM = "random.safetensors"
WRITING = ".writing"
"""In a work folder: what is not a whole checkpoint yet, or any more."""


def save_optimizer(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Write the state of an optimiser and of its learning rate's schedule, by the first of the processes that train.

    So it is one file whatever number of processes goes on from it, and whatever they shard.
    """
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = whole(value)
            else:
                plain.setdefault(str(index), {})[name] = value
    if not group.is_first():
        return
    save_file(tensors, folder / TENSORS)
    content = {"groups": state["param_groups"], "plain": plain, "scheduler": scheduler.state_dict()}
    (folder / PLAIN).write_text(json.dumps(content, indent=2), encoding="utf-8")


def load_optimizer(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Give both the state that `save_optimizer` wrote."""
    saved = json.loads((folder / PLAIN).read_text(encoding="utf-8"))
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in saved["plain"].items()}
    parameters = [parameter for each in optimizer.param_groups for parameter in each["params"]]
    for name, tensor in load_file(folder / TENSORS).items():
        index, _, field = name.partition(".")
        state.setdefault(int(index), {})[field] = like(tensor, parameters[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": saved["groups"]})
    scheduler.load_state_dict(saved["scheduler"])


def save_random(folder: Path, device: torch.device) -> None:
    """Write the state of torch's random generators, of the CPU and of a GPU that is trained on."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    save_file(states, folder / RANDOM)


def load_random(folder: Path, device: torch.device) -> None:
    """Have torch draw on from the state that `save_random` wrote, where it did: earlier releases kept none."""
    if not (folder / RANDOM).exists():
        logger.warning("%s has no random state: dropout, if there is any, is drawn anew", folder)
        return
    states = load_file(folder / RANDOM)
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def replacing(work: Path) -> Iterator[Path]:
    """A folder to write one checkpoint below, which takes the place of those in `work` once it is whole.

    Of several processes the first one writes it.
    """
    draft = work / WRITING
    if group.is_first():
        shutil.rmtree(draft, ignore_errors=True)
    yield draft
    if group.is_first():
        before, (made,) = list(work.glob("checkpoint-*")), draft.glob("checkpoint-*")
        made.rename(work / made.name)
        for old in before:
            old.rename(draft / old.name)
        shutil.rmtree(draft)


def resume_point(work: Path) -> str | None:
    """The last whole checkpoint below a work folder, or None; those after it are torn, and deleted."""
    for folder in sorted(work.glob("checkpoint-*"), key=steps_done, reverse=True):
        if _is_whole(folder):
            return str(folder)
        logger.warning("%s is not whole and is deleted; training goes on from what came before it", folder)
        shutil.rmtree(folder)
    return None


def steps_done(checkpoint: Path) -> int:
    """After how many steps it was written."""
    return int(checkpoint.name.rpartition("-")[2])


def _is_whole(checkpoint: Path) -> bool:
    """Whether every part is there and not cut off: a crash of the machine can leave files empty or missing."""
    weights = [*checkpoint.glob("model*.safetensors"), *checkpoint.glob(ADAPTER)]
    try:
        for name in ("trainer_state.json", PLAIN, *(file.name for file in checkpoint.glob("*.index.json"))):
            content = json.loads((checkpoint / name).read_text(encoding="utf-8"))
            weights += [checkpoint / shard for shard in content.get("weight_map", {}).values()]
        for file in {checkpoint / TENSORS, *checkpoint.glob(RANDOM), *weights}:
            with safe_open(file, "pt"):  # its header names the length that the file must have
                pass
    except (OSError, ValueError, AttributeError, SafetensorError):
        return False
    return bool(weights)
