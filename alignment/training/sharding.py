"""A model whose weights, gradients and optimiser are shared among processes while it is trained (torch's FSDP2)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


@contextmanager
def standing_in(model: Any, sharding: str) -> Iterator[Any]:
    """What is to be trained: the model itself, or another one that can be sharded, which takes its weights for a while.

    A sharded model's modules are of other classes, and their weights no tensors that could be saved, so it is not the
    model itself. That one has no weights meanwhile, so that the machine has room for one model a process, and the
    trained ones at the end, in the machine's memory: a device has the other's optimiser still. Of several processes
    the first alone gets them.
    """
    if sharding == "none":
        yield model
        return
    model.cpu()
    copy = deepcopy(model, {id(tensor): tensor for tensor in model.parameters()})
    _without_weights(model)
    yield copy
    if state := whole_weights(copy):
        model.load_state_dict(state, assign=True)
        model.tie_weights()


def _without_weights(model: Any) -> None:
    """Leave of each parameter its shape; buffers stay, which no checkpoint may have."""
    shapes: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                shapes.setdefault(id(weight), torch.nn.Parameter(weight.detach().to("meta"), weight.requires_grad))
                module._parameters[name] = shapes[id(weight)]


def shard_anywhere(accelerator: Any, settings: Mapping[str, Any]) -> None:
    """Have an accelerator shard models by FSDP2, on CPUs too, and round nothing by itself.

    Else accelerate leaves a model on CPUs whole, without a word, and on GPUs rounds norms, residuals and the sums of
    gradients with what is multiplied: other numbers than those of a training that shards nothing.
    """
    from accelerate.state import PartialState  # type: ignore[import-untyped]
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin  # type: ignore[import-untyped]
    from torch.distributed.fsdp import MixedPrecisionPolicy

    state = accelerator.state
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**settings, mixed_precision_policy=MixedPrecisionPolicy())
    PartialState._shared_state["distributed_type"] = state.distributed_type = DistributedType.FSDP


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
