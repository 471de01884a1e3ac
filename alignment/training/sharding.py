"""A model whose weights, gradients and optimiser are shared among processes while it is trained (torch's FSDP2)."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from alignment.device import place


@contextmanager
def standing_in(model: Any, sharding: str) -> Iterator[Any]:
    """What is to be trained: the model itself, or a copy that can be sharded, whose weights it has at the end.

    A sharded model's modules are of other classes, and their weights no tensors that could be saved, so it is not the
    model itself; that one waits in the machine's memory. Of several processes the first alone has the trained weights.
    """
    if sharding == "none":
        yield model
        return
    copy = deepcopy(model.cpu())
    yield copy
    if state := whole_weights(copy):
        model.load_state_dict(state)
    place(model)


def is_sharded(tensor: Any) -> bool:
    """Whether this process has but a part of it."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Any:
    """A tensor on the CPU, its parts gathered from all processes, each of which has to ask for it."""
    found: Any = tensor.detach()
    return (found.full_tensor() if is_sharded(found) else found).cpu().contiguous()


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as a parameter of its shape is: this process's part of it, where that is sharded."""
    if not is_sharded(parameter) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh: Any = parameter.device_mesh  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(mesh.device_type), mesh, parameter.placements)  # type: ignore[attr-defined]


def whole_weights(model: Any) -> dict[str, Any]:
    """All weights of a sharded model, for the first process; the others help, and get none."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)))


def load_weights(model: Any, folder: Path) -> None:
    """Give a sharded model the weights of a checkpoint; those that are tied are there once."""
    weights = {name: tensor for file in folder.glob("model*.safetensors") for name, tensor in load_file(file).items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(like(weights[name], parameter))
