"""What there is before anything is loaded: the memory of the devices, and the shapes of the models that are named."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from alignment import adapters, hub, models
from alignment.config import AlignConfig
from alignment.errors import ModelError
from alignment.memory import Shape, gigabytes
from alignment.rewards.parts import is_trained, judges
from alignment.tensor_files import header_of

DEVICES = Path("/dev")
ACCELERATORS = ("nvidia[0-9]*", "dxg", "kfd")
"""Device files of GPUs: NVIDIA's, of whatever number, those of Windows' Linux, and AMD's."""

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class Device(NamedTuple):
    """Where stages compute: `cpu` or `cuda`, how people call it, and its bytes, None where these are not known."""

    kind: str
    name: str
    size: int | None

    @property
    def told(self) -> str:
        """The device with its memory."""
        return self.name if self.size is None else f"{self.name} with {gigabytes(self.size)}"


_assumed: ContextVar[tuple[Device, int] | None] = ContextVar("_assumed", default=None)


@contextmanager
def assumed(gigabytes: float | None, cards: int = 1) -> Iterator[None]:
    """Take stages to compute on so many GPUs with so much memory each; with None, on what there is here."""
    found = None if gigabytes is None else (Device("cuda", "the GPU", int(gigabytes * 1e9)), cards)
    token = _assumed.set(found)
    try:
        yield
    finally:
        _assumed.reset(token)


def is_assumed() -> bool:
    """Whether the device is one that need not be here."""
    return _assumed.get() is not None


def device() -> Device:
    """The largest GPU, else this machine; torch is not asked, which would take memory on the GPU for good."""
    if (found := _assumed.get()) is not None:
        return found[0]
    if any(next(DEVICES.glob(pattern), None) for pattern in ACCELERATORS):
        return max(_cards(), key=lambda card: card.size or 0, default=Device("cuda", "the GPU", None))
    return machine()


def machine() -> Device:
    """This machine's processors, which have its memory."""
    return Device("cpu", "this machine", machine_memory())


def cards() -> int:
    """How many GPUs there are here, as far as that is known."""
    found = _assumed.get()
    return max(1, len(_cards())) if found is None else found[1]


def machine_memory() -> int | None:
    """Bytes that processes here may have: the machine's memory, or less where a control group has a limit."""
    if sys.platform != "linux":
        return None
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits()])


def _limits() -> list[int]:
    """The limits of this process's control groups and those above them, of both versions of the interface."""
    try:
        lines = (PROC / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, file = (CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (CGROUPS, "memory.max")
        own = top / place.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(top):
                text = (folder / file).read_text(encoding="utf-8").strip() if (folder / file).is_file() else ""
                found += [int(text)] if text.isdigit() else []
    return found


@cache
def _cards() -> tuple[Device, ...]:
    """NVIDIA's cards as their own tool lists them; none where it is missing or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    wanted = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(wanted, capture_output=True, text=True, timeout=20, check=True).stdout  # noqa: S603
        rows = [line.rsplit(",", 1) for line in listed.splitlines() if line.strip()]
        return tuple(Device("cuda", name.strip(), int(size) * 2**20) for name, size in rows)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def shapes(config: AlignConfig, *, fetch: bool = False) -> dict[str, Shape]:
    """The shapes of a configuration's models, where they can be told: `base`, `anchor`, and those of `judges`.

    Of a model on the hub its config.json is read from the cache, and with `fetch` it is fetched, alone, where that has
    none. Raises ModelError where a local folder's files cannot be read.
    """
    found = {"base": _base(config, fetch)}
    for place, judge in judges(config):
        found[place] = _reward(config) if is_trained(judge) else _named(judge.model, judge.revision, "reward", fetch)
    if config.evaluation.anchor:
        found["anchor"] = _named(config.evaluation.anchor, "main", "anchor", fetch)
    return {name: shape for name, shape in found.items() if shape is not None}


def unknown(config: AlignConfig, shapes: Mapping[str, Shape]) -> list[str]:
    """The fields that name a model whose shape could not be told, with their values."""
    named = {"base.model": config.base.model, "evaluation.anchor": config.evaluation.anchor}
    named |= {f"{place}.model": judge.model for place, judge in judges(config)}
    known = {f"{place}.model" for place in shapes} | ({"evaluation.anchor"} if "anchor" in shapes else set())
    return [f"{field} {value}" for field, value in named.items() if value and field not in known]


def _base(config: AlignConfig, fetch: bool) -> Shape | None:
    base = config.base
    if base.model != "train":
        return _named(base.model, base.revision, "base", fetch)
    sizes = {"n_layer": base.layers, "n_embd": base.width, "n_head": base.heads, "n_positions": base.context}
    return Shape.of({"model_type": "gpt2", "vocab_size": base.vocab_size, **sizes})


def _reward(config: AlignConfig) -> Shape | None:
    reward = config.reward
    if reward.start:
        return _named(reward.start, "main", "start", False)
    sizes = {"n_layers": reward.layers, "dim": reward.width, "hidden_dim": 4 * reward.width, "n_heads": reward.heads}
    told = {"model_type": "distilbert", "max_position_embeddings": reward.context, **sizes}
    return Shape.of({"vocab_size": config.base.vocab_size, **told})


def _named(source: str, revision: str, kind: models.Kind, fetch: bool) -> Shape | None:
    if source.startswith("models:/"):
        return None
    folder = models.local_folder(source, kind)
    if folder is not None and adapters.is_adapter(folder):
        base = adapters.base_of(folder)
        if base.folder is None:
            return _named(base.name, base.revision, kind, fetch)
        folder = base.folder
    if folder is None:
        return _on_hub(source, revision, fetch)
    return Shape.of(_json(folder / "config.json"), weights_of(folder) or None)


def _on_hub(name: str, revision: str, fetch: bool) -> Shape | None:
    """By its config.json alone; None where it cannot be had, which is for whoever loads the model to say."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        file = try_to_load_from_cache(name, "config.json", revision=revision)
        if not isinstance(file, str) and fetch:
            with hub.cache_without_network():
                file = hf_hub_download(name, "config.json", revision=revision)
        return Shape.of(_json(Path(file))) if isinstance(file, str) else None
    except Exception:  # noqa: BLE001 - of the network, and of names that are none
        return None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # which `alignment.models.check_folder` says
        return {}
    return found if isinstance(found, dict) else {}


def weights_of(folder: Path) -> int:
    """How many weights the files that are loaded name in their headers. Raises ModelError where one is not whole."""
    headers = [header_of(file, f"base.model {file}") for file in _loaded_files(folder)]
    return sum(math.prod(each["shape"]) for header in headers for each in header.values())


def _loaded_files(folder: Path) -> list[Path]:
    """The files of weights that `from_pretrained` reads; others may hold the same weights once more."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():
        return [whole]
    if not index.exists():
        return []
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({folder / name for name in found})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"base.model {index}: is no index of weights; save the model again") from error
