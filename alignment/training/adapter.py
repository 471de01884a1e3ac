"""Training of an adapter: low-rank matrices beside the frozen weights of a model, which starts as its own reference."""

import warnings
from dataclasses import replace
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from alignment.adapters import shared_weights
from alignment.config import DPOConfig
from alignment.errors import ModelError
from alignment.models import Loaded, using

LINEAR = (torch.nn.Linear, Conv1D)


def attach(loaded: Loaded, config: DPOConfig, seed: int) -> Loaded:
    """The model with a new LoRA adapter, which alone is trained; with the adapter off it is the model that it was.

    One matrix of each pair starts at zero, and the other is drawn with the seed, on the CPU whatever the device.
    Raises ModelError as `targets` does, and where the model's code bears no adapter.
    """
    from peft import LoraConfig, get_peft_model

    names, alpha = targets(loaded, config.adapter_targets), config.adapter_alpha
    settings = LoraConfig(
        r=config.adapter_rank,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,  # which other programs read as a whole number
        lora_dropout=0.0,
        target_modules=names,
        fan_in_fan_out=any(isinstance(loaded.model.get_submodule(name), Conv1D) for name in names),
        task_type="CAUSAL_LM",
    )
    with using(loaded.name, "training a LoRA adapter"), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers of two kinds, for which peft turns a setting, and of tied weights
        torch.manual_seed(seed)
        return replace(loaded, model=get_peft_model(loaded.model, settings).eval())


def targets(loaded: Loaded, named: tuple[str, ...]) -> list[str]:
    """The full names of the layers that get an adapter: those that `named` gives whole or by their last parts.

    Without names it is every linear layer but the output head, those whose weights several layers share, and those
    whose weights a state-space block reads past the layer. Raises ModelError where there is none, or none of a name.
    """
    model = loaded.model
    if not named:
        head, shared = model.get_output_embeddings(), shared_weights(model)
        found = [
            name
            for name, module in model.named_modules()
            if isinstance(module, LINEAR)
            and module is not head
            and id(module.weight) not in shared
            and not _is_read_past(model, name)
        ]
        if not found:
            raise ModelError(
                f"{loaded.name}: has no linear layer that a LoRA adapter could stand on; set dpo.adapter to none"
            )
        return found
    possible = [name for name, module in model.named_modules() if isinstance(module, (*LINEAR, torch.nn.Embedding))]
    for name in named:
        if not any(_is_called(full, name) for full in possible):
            raise ModelError(
                f"{loaded.name}: dpo.adapter_targets names {name!r}, and has no layer of that name that a LoRA adapter "
                f"could stand on; name some of {', '.join(sorted({full.rpartition('.')[2] for full in possible}))}"
            )
    return [full for full in possible if any(_is_called(full, name) for name in named)]


def trainable(model: Any) -> dict[str, int]:
    """How many parameters are trained, and how many there are with them, each as one also where 4 bits hold it."""
    trained, everything = model.get_nb_trainable_parameters()
    return {"trainable_parameters": trained, "all_parameters": everything}


def _is_called(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")


def _is_read_past(model: Any, name: str) -> bool:
    """Whether a layer is one of a Mamba block whose weights its kernels take, and which they never call."""
    parent = model.get_submodule(name.rpartition(".")[0])
    return name.endswith((".out_proj", ".dt_proj")) and hasattr(parent, "A_log") and hasattr(parent, "D")
