"""What would stop a run before it has computed anything: bounds out of reach, files, columns and models unfit for it.

Only names, sizes and beginnings are read, never a weight, so that a form can ask while somebody waits.
"""

import json
import math
import os
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from alignment import adapters, models
from alignment.config import AlignConfig
from alignment.config.loading import as_fault
from alignment.conventions import CONTEXT_NAMES
from alignment.data import reading
from alignment.data.chat import read_template
from alignment.data.prompts.ids import read_ids
from alignment.data.texts import GRAMMAR, sources_of, wanted_of
from alignment.data.wanted import Wanted
from alignment.errors import ConfigError, DataError, Fault, InputError, ModelError
from alignment.judging.regression import read_tasks
from alignment.kinds import REWARD_MODELS, TRAINERS
from alignment.reach import unreachable
from alignment.rewards.function_file import require_function
from alignment.rewards.parts import takes_model
from alignment.stages.sources import OWN_DATA, of_real_texts, real_data, wanted_rows

WHOLE = 2**24
"""Bytes of a file of JSON that is read for its columns: only all of its rows together tell which it has."""

FLOAT = 4
"""Bytes of a weight in fp32, in which a policy is trained whatever the precision of its forward pass."""

DEVICES = Path("/dev")
ACCELERATORS = ("nvidia[0-9]*", "dxg", "kfd")
"""Device files of GPUs: NVIDIA's, of whatever number, those of Windows' Linux, and AMD's."""

HEADER = 100_000_000
"""Bytes that the header of a safetensors file may have."""


def require_startable(config: AlignConfig) -> None:
    """Raise ConfigError with every fault that `faults_of` finds."""
    if found := list(faults_of(config)):
        raise ConfigError("; ".join(fault.message for fault in found), found)


def faults_of(config: AlignConfig, *, own_base: bool = True) -> Iterator[Fault]:
    """Everything that is known to stop a run of this configuration; registered models and the hub are not asked.

    Without `own_base` the base model is not looked at: a later round starts from the champion in its place.
    """
    yield from unreachable(config)
    seen = set[str]()
    for look in _looks(config, own_base):
        try:
            look()
        except InputError as error:
            fault = as_fault(str(error))
            if fault.message not in seen:
                seen.add(fault.message)
                yield fault


def _looks(config: AlignConfig, own_base: bool) -> Iterator[Callable[[], Any]]:
    """What there is to look at, each by a function that raises InputError."""
    for source in sources_of(config.data):
        if source.path != GRAMMAR and reading.is_local(source.path):
            yield partial(_columns, source.path, wanted_rows(config))
    prompts = config.prompts
    if prompts.eval_path and prompts.eval_path != GRAMMAR and reading.is_local(prompts.eval_path):
        yield partial(_eval_files, prompts.eval_path)
    if prompts.exclude:
        yield partial(read_ids, prompts.exclude)
    if prompts.chat_template:
        yield partial(read_template, prompts.chat_template)
    if own_base:
        yield partial(_base, config)
    yield partial(read_tasks, config.evaluation.tasks)
    for each in (config.reward, *config.reward.parts, *config.evaluation.gold):
        if each.kind == "function":
            yield partial(require_function, each.function)
        elif takes_model(each) and each.model != "train" and not REWARD_MODELS.origin(each.kind).package:
            yield partial(_folder, each.model, "reward")
    if config.reward.start:
        yield partial(_folder, config.reward.start, "start")
    real = config.evaluation.real_texts
    if real and real not in (GRAMMAR, OWN_DATA) and reading.is_local(real):
        yield partial(_real_columns, real, wanted_of(real_data(config)))
    if config.evaluation.anchor:
        yield partial(_folder, config.evaluation.anchor, "anchor")


def _real_columns(path: str, wanted: Wanted) -> None:
    """The same of the real texts of an evaluation, with the names of their fields."""
    try:
        _columns(path, wanted)
    except DataError as error:
        raise of_real_texts(error) from error


def _columns(path: str, wanted: Wanted) -> None:
    """Raise DataError where there is no file, or the smallest of them lacks a column that is read."""
    file = min(reading.files_of(path), key=lambda each: each.stat().st_size)
    kind = file.suffix.lower()
    of_json = kind in (".json", ".jsonl")
    if of_json and file.stat().st_size > WHOLE:
        return
    try:
        with file.open("rb") as stream:
            rows = reading.READERS[kind](stream, replace(wanted, path=str(file)))
            deque(rows if of_json else islice(rows, 1), maxlen=0)
    except DataError:
        raise
    except Exception as error:  # the readers raise whatever their format's library raises
        raise reading.unreadable(file, error) from error


def _eval_files(path: str) -> None:
    """Raise DataError where the files of prompts.eval_path are missing, empty or of no kind that can be read."""
    try:
        reading.files_of(path)
    except DataError as error:
        raise DataError(str(error).replace("data.path", "prompts.eval_path", 1)) from error


def _base(config: AlignConfig) -> None:
    """Raise where the base model's folder is not fit, sees fewer tokens than are wanted, or exceeds the memory."""
    if config.base.model == "train" or (folder := _folder(config.base.model, "base")) is None:
        return
    longest = _context(folder)
    if longest is not None and config.sampling.total_tokens > longest:
        raise ConfigError(
            f"sampling.total_tokens = {config.sampling.total_tokens} exceeds the {longest} tokens that base.model = "
            f"{config.base.model} sees: lower sampling.total_tokens to {longest} at most"
        )
    each, there = _bytes_a_weight(config), _memory()
    if each is None or there is None:
        return
    weights = _weights(folder)
    if weights * each > there:
        way_out = "take a smaller model"
        if config.dpo.adapter == "none":
            way_out = f"set dpo.adapter to lora, or {way_out}"
        raise ConfigError(
            f"base.model = {config.base.model}: its {weights:,} weights take {weights * each / 1e9:.1f} GB while they "
            f"are trained (dpo.adapter = {config.dpo.adapter}), and this machine has {there / 1e9:.1f} GB: {way_out}"
        )


def _bytes_a_weight(config: AlignConfig) -> int | None:
    """What a weight takes in training: itself, and where it is trained its gradient and the optimiser's moments.

    None for a trainer of another package, which may hold less.
    """
    if TRAINERS.origin(config.dpo.trainer).package:
        return None
    if config.dpo.adapter != "none":
        return FLOAT
    return FLOAT * (4 if config.dpo.optimizer == "adamw" else 3)


def _weights(folder: Path) -> int:
    """How many weights the files that are loaded name in their headers. Raises ModelError where one has no such."""
    total = 0
    for file in _loaded_files(folder):
        try:
            with file.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(min(length, HEADER)))
            total += sum(math.prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error) as error:
            raise ModelError(
                f"base.model {file}: its header cannot be read as safetensors, as after a download that broke off; "
                "get the file again"
            ) from error
    return total


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


def _memory() -> int | None:
    """Bytes of this machine's memory; None where a GPU computes, whose memory is asked when the model is there."""
    if sys.platform != "linux" or any(next(DEVICES.glob(pattern), None) for pattern in ACCELERATORS):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _folder(model: str, kind: models.Kind) -> Path | None:
    """A model's folder, None where it is registered or on the hub. Raises ModelError where a part of it is missing."""
    if model.startswith("models:/") or (folder := models.local_folder(model, kind)) is None:
        return None
    if kind == "base" and adapters.is_adapter(folder):
        return adapters.base_of(folder).folder
    models.check_folder(folder, kind)
    return folder


def _context(folder: Path) -> int | None:
    """The longest sequence that a model's config.json names."""
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = found.get("text_config")  # of a model that knows more than text
    named = ((text if isinstance(text, dict) else found).get(name) for name in CONTEXT_NAMES)
    return min((value for value in named if isinstance(value, int) and value > 0), default=None)
