"""Whether an adapter was trained over the base that it is to stand on: what it records, names, and has for shapes."""

import hashlib
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

from alignment.errors import ModelError

logger = logging.getLogger(__name__)

FINGERPRINT = "plumbline.base"
"""In the metadata of an adapter's weights: the fingerprint of the base that it was trained over."""

SAMPLED = 4_096  # values of each weight that a fingerprint holds

WAY_OUT = "set `base_model_name_or_path` in adapter_config.json to the base that it was trained on"

_SIZES = re.compile(r"size mismatch for (\S+): .*? with shape (\S*\[.*?\]).*? current model is (\S*\[.*?\])")
_NO_LAYERS = re.compile(r"Target modules .* not found in the base model", re.S)
_NAMED = re.compile(r"^base_model: *['\"]?([^'\"\s#]+)['\"]? *$", re.M)


def fingerprint(model: Any) -> str:
    """SHA-256 of the name, shape and some evenly spaced values of each weight of a model, those of a LoRA aside.

    Values count in fp32, so it is the same in whatever files and floats the weights were kept, if none was rounded.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    weights = {name.replace(".base_layer", ""): weight for name, weight in base.named_parameters()}
    found = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        if any(part.startswith("lora_") for part in name.split(".")):
            continue
        values = weight.detach().reshape(-1)[:: max(1, weight.numel() // SAMPLED)]
        found.update(f"{name} {tuple(weight.shape)} ".encode())
        found.update(values.float().cpu().numpy().tobytes())
    return found.hexdigest()


def require_recorded(where: str, weights: Path, base: str, model: Any) -> None:
    """Raise ModelError where the file of an adapter's weights records another base than this model, named `base`."""
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        recorded = (file.metadata() or {}).get(FINGERPRINT, "")
    if recorded and recorded != (found := fingerprint(model)):
        raise ModelError(
            f"{where}: is an adapter for another base: it was trained over the weights {recorded[:12]}, and its base "
            f"{base} has {found[:12]}; {WAY_OUT}"
        )


def require_fit(where: str, base: str, error: Exception) -> None:
    """Raise ModelError where peft could not lay an adapter over a base since the two have other layers or shapes."""
    if found := _SIZES.search(str(error)):
        module, shape, there = found.groups()
        raise ModelError(
            f"{where}: is an adapter for another base: its {_layer(module)} is {_shape(shape)}, and over its base "
            f"{base} it would be {_shape(there)}; {WAY_OUT}"
        ) from error
    if _NO_LAYERS.search(str(error)):
        raise ModelError(
            f"{where}: is an adapter for another base: its base {base} has none of the layers that it stands on; "
            f"{WAY_OUT}"
        ) from error


def compare_names(where: str, folder: Path, base: str) -> None:
    """Warn, once, where the README that peft wrote beside an adapter names another base than its config does.

    One folder or name may stand for the other as a copy, so what they end in is compared.
    """
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return
    told = _NAMED.search(text.split("\n---", 1)[0])
    if told and _end(told[1]) != _end(base):
        _warn(
            f"{where}: its README.md says that it was trained over {told[1]}, and its base here is {base}; if that is "
            f"no copy of it, {WAY_OUT}"
        )


def missing(where: str, base: str, key: str) -> ModelError:
    """The error where a base has no place for a weight of an adapter."""
    return ModelError(
        f"{where}: is an adapter for another base: its base {base} has no place for {_layer(key)}; {WAY_OUT}"
    )


@cache
def _warn(message: str) -> None:
    logger.warning("%s", message)


def _layer(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".default", "").removesuffix(".weight")


def _shape(text: str) -> str:
    return " × ".join(re.findall(r"\d+", text))


def _end(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()
