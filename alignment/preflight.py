"""What would stop a run before it has computed anything: bounds out of reach, files, columns and models unfit for it.

Only names, sizes and beginnings are read, never a weight, so that a form can ask while somebody waits.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from alignment import adapters, bits, capacity, memory, models, needs, savings
from alignment.config import AlignConfig
from alignment.config.loading import as_fault
from alignment.conventions import CONTEXT_NAMES
from alignment.data import reading
from alignment.data.chat import read_template
from alignment.data.prompts.ids import read_ids
from alignment.data.texts import GRAMMAR, sources_of, wanted_of
from alignment.data.wanted import Wanted
from alignment.errors import ConfigError, DataError, Fault, InputError
from alignment.judging.regression import read_tasks
from alignment.kinds import REWARD_MODELS
from alignment.reach import unreachable
from alignment.rewards.function_file import require_function
from alignment.rewards.parts import takes_model
from alignment.stages.sources import OWN_DATA, of_real_texts, real_data, wanted_rows

WHOLE = 2**24
"""Bytes of a file of JSON that is read for its columns: only all of its rows together tell which it has."""


def require_startable(config: AlignConfig, *, fitting: bool = True) -> None:
    """Raise ConfigError with every fault that `faults_of` finds, and what the hub tells of a model's size."""
    if found := list(faults_of(config, fitting=fitting, fetch=True)):
        raise ConfigError("; ".join(fault.message for fault in found), found)


def faults_of(
    config: AlignConfig, *, own_base: bool = True, fitting: bool = True, fetch: bool = False
) -> Iterator[Fault]:
    """Everything that is known to stop a run of this configuration; registered models and the hub are not asked.

    Without `own_base` the base model is not looked at: a later round starts from the champion in its place. With
    `fetch` the hub is asked for a model's config.json, which tells its size; without `fitting` no size is looked at.
    """
    yield from unreachable(config)
    seen = set[str]()
    for look in _looks(config, own_base, fitting and own_base, fetch):
        try:
            look()
        except InputError as error:
            for fault in (error.faults if isinstance(error, ConfigError) else ()) or (as_fault(str(error)),):
                if fault.message not in seen:
                    seen.add(fault.message)
                    yield fault


def _looks(config: AlignConfig, own_base: bool, fitting: bool, fetch: bool) -> Iterator[Callable[[], Any]]:
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
    if fitting:
        yield partial(require_fitting, config, fetch=fetch)
    if bits.asked(config):
        yield partial(_bits, config)
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
    """Raise where the base model's folder is not fit, or sees fewer tokens than are wanted."""
    if config.base.model == "train" or (folder := _folder(config.base.model, "base")) is None:
        return
    longest = _context(folder)
    if longest is not None and config.sampling.total_tokens > longest:
        raise ConfigError(
            f"sampling.total_tokens = {config.sampling.total_tokens} exceeds the {longest} tokens that base.model = "
            f"{config.base.model} sees: lower sampling.total_tokens to {longest} at most"
        )


def _bits(config: AlignConfig) -> None:
    if not capacity.is_assumed():
        bits.require(config, gpu=capacity.device().kind == "cuda")


def require_fitting(config: AlignConfig, *, fetch: bool = True) -> None:
    """Raise ConfigError where stages need more memory than the device has, whatever the estimate may be off by.

    Each has a fault of its own, with what helps it; stages for which both are the same share one. With `fetch` the
    hub is asked for a model's config.json, which tells its size.
    """
    device = capacity.device()
    if device.size is None:
        return
    shapes = capacity.shapes(config, fetch=fetch)
    stages: dict[tuple[memory.Memory, str], list[str]] = {}
    for stage, needed in needs.needs(config, shapes, device.kind).items():
        if needed.at_least > device.size:
            helps = savings.advice(stage, config, shapes, device.kind, size=device.size, cards=capacity.cards())
            stages.setdefault((needed, helps), []).append(stage)
    told = []
    for (needed, helps), names in stages.items():
        model = " = ".join(needs.model_of(names[0], config, shapes, device.kind))
        there = f"{device.name} has {memory.gigabytes(device.size)}"
        told.append(f"{model}: {_needs(names)} about {needed.told}, and {there}: {helps}")
    if device.kind != "cpu" and not capacity.is_assumed():
        told += _too_large_for_the_machine(config, shapes)
    if told:
        raise ConfigError("; ".join(told), [as_fault(each) for each in told])


def _too_large_for_the_machine(config: AlignConfig, shapes: needs.Shapes) -> Iterator[str]:
    """What stages need of the memory of a machine with GPUs, and it has not."""
    machine = capacity.machine()
    for stage, needed in needs.of_machine(config, shapes).items():
        if machine.size is not None and (1 - memory.ERROR) * needed > machine.size:
            way_out = "lower dpo.processes, or take" if stage == "policy" and config.dpo.sharding == "fsdp" else "take"
            yield (
                f"{' = '.join(needs.model_of(stage, config, shapes, 'cuda'))}: the stage {stage} needs about "
                f"{memory.gigabytes(needed)} of the machine's own memory, and {machine.name} has "
                f"{memory.gigabytes(machine.size)}: {way_out} a machine with more, or a smaller model"
            )


def _needs(stages: list[str]) -> str:
    *others, last = stages
    return f"the stages {', '.join(others)} and {last} need" if others else f"the stage {last} needs"


def _folder(model: str, kind: models.Kind) -> Path | None:
    """A model's folder, None where it is registered or on the hub. Raises ModelError where a part of it is missing."""
    if model.startswith("models:/") or (folder := models.local_folder(model, kind)) is None:
        return None
    if kind == "base" and adapters.is_adapter(folder):
        base = adapters.base_of(folder)
        adapters.require_whole(folder)
        return base.folder
    models.check_folder(folder, kind)
    return folder


def _context(folder: Path) -> int | None:
    """The longest sequence that a model's config.json names."""
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = found.get("text_config")  # of a model that knows more than text
    named = ((text if isinstance(text, dict) else found).get(name) for name in CONTEXT_NAMES)
    return min((value for value in named if isinstance(value, int) and value > 0), default=None)
