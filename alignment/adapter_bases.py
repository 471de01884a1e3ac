"""Whether an adapter was trained over the base that it is to stand on: what it records, names, and has for shapes."""

import base64
import json
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from alignment.errors import ModelError

logger = logging.getLogger(__name__)

FINGERPRINT = "plumbline.base"
"""In the metadata of an adapter's weights: the fingerprint of the base that it was trained over."""

SAMPLED = 32  # values of each weight that a fingerprint holds, 64 at most: 70 kB for a model of 8B parameters

EXACT = 2**-20  # relative: what two devices make of one sum in fp32
ROUNDED = 2**-8  # relative: half of the distance between two neighbours of bf16; fp16's is smaller
SMALLEST = 2**-24  # absolute: the distance between neighbours of fp16 about zero

WAY_OUT = "set `base_model_name_or_path` in adapter_config.json to the base that it was trained on"

_SIZES = re.compile(r"size mismatch for (\S+): .*? with shape (\S*\[.*?\]).*? current model is (\S*\[.*?\])")
_NO_LAYERS = re.compile(r"Target modules .* not found in the base model", re.S)
_NAMED = re.compile(r"^base_model: *['\"]?([^'\"\s#]+)['\"]? *$", re.M)


def fingerprint(model: Any) -> str:
    """JSON of the shape and some evenly spaced values of each weight of a model by its name, those of a LoRA aside.

    Values are fp32 in base64, so it is the same in whatever files and floats the weights were kept, if none was
    rounded.
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    weights = {name.replace(".base_layer", ""): weight for name, weight in base.named_parameters()}
    found: dict[str, tuple[list[int], str]] = {}
    for name, weight in weights.items():
        if any(part.startswith("lora_") for part in name.split(".")):
            continue
        step = max(1, weight.numel() // SAMPLED) | 1  # odd: not all of one column
        values = weight.detach().reshape(-1)[::step].float().cpu().numpy()
        found[name] = list(weight.shape), base64.b64encode(values.astype("<f4").tobytes()).decode()
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def require_recorded(where: str, weights: Path, base: str, model: Any) -> None:
    """Raise ModelError where the file of an adapter's weights records another base than this model, named `base`.

    A base is the recorded one if of each weight at least half of the values are within what bf16 rounds: a merge that
    was computed in bf16 is off by more where it nearly cancels a weight. Of rounding a warning tells.
    """
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        recorded = (file.metadata() or {}).get(FINGERPRINT, "")
    if not recorded or recorded == (found := fingerprint(model)):
        return
    ours, theirs = json.loads(recorded), json.loads(found)
    is_rounded = False
    for name in sorted(ours.keys() | theirs.keys()):
        shares = _shares_within(ours.get(name), theirs.get(name), EXACT, ROUNDED)
        if shares[1] < 0.5:
            raise ModelError(
                f"{where}: is an adapter for another base: it was trained over other weights than its base {base} has, "
                f"{_layer(name)} for one; {WAY_OUT}"
            )
        is_rounded |= shares[0] < 1
    if is_rounded:
        _warn(
            f"{where}: the weights of its base {base} are off by rounding, as to bf16, from those that it was trained "
            f"over; if that is no copy of them, {WAY_OUT}"
        )


def _shares_within(one: Any, other: Any, *bounds: float) -> list[float]:
    """Which shares of a weight's values are the same in two fingerprints, within these relative bounds."""
    if one is None or other is None or one[0] != other[0]:
        return [0.0] * len(bounds)
    first, second = (np.frombuffer(base64.b64decode(values), "<f4").astype(float) for _, values in (one, other))
    off, size = np.abs(first - second), np.maximum(np.abs(first), np.abs(second))
    return [float((off <= bound * size + SMALLEST).mean()) if off.size else 1.0 for bound in bounds]


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
