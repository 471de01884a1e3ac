"""The fields that make a stage take less memory, what to set them to, and what it takes then by the estimate."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from alignment.batching import CPU_TOKENS
from alignment.config import AlignConfig
from alignment.memory import gigabytes
from alignment.needs import Shapes, need

HELPS = 0.9
"""What a change leaves of a stage's memory at most, where it is worth a word."""

MOST = 3


class Saving(NamedTuple):
    """What to set, in words, and as the fields of a configuration; without these it is not known what it saves."""

    told: str
    fields: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - nobody writes into it


Saver = Callable[[AlignConfig], Saving | None]
"""What could be saved of a configuration; None where it is saved already."""


def advice(
    stage: str, config: AlignConfig, shapes: Shapes, kind: str, *, size: int | None = None, cards: int = 1
) -> str:
    """Three fields at most, those first that change the least, and what the stage takes with all of them.

    Left out are those that save little beside the ones before. `size` is what the device has, `cards` how many GPUs
    there are. Where the shape of the stage's model is not known, these are the first three that can help.
    """
    now = need(stage, config, shapes, kind)
    found: list[Saving] = []
    for saver in _savers(stage, config, kind, cards):
        if len(found) == MOST or (saving := saver(config)) is None:
            continue
        changed = _changed(config, saving.fields)
        then = need(stage, changed, shapes, kind)
        if now is None or then is None or not saving.fields or then.peak <= HELPS * now.peak:
            found.append(saving)
            config, now = changed, then
    *others, last = (saving.told for saving in found)
    fields = f"set {', '.join(others)}, or {last}" if others else f"set {last}"
    known = sum(bool(saving.fields) for saving in found)
    if now is None or not known:
        return fields
    still = "; that is still too much" if size is not None and now.at_least > size else ""
    of = "that" if len(found) == 1 else "all of them" if known == len(found) else f"the first {'two' * (known == 2)}"
    return f"{fields} (about {gigabytes(now.peak)} with {of.strip()}{still})"


def _changed(config: AlignConfig, fields: dict[str, dict[str, Any]]) -> AlignConfig:
    """The configuration with other fields, for arithmetic alone: it is not validated."""
    groups = {group: getattr(config, group).model_copy(update=changes) for group, changes in fields.items()}
    return config.model_copy(update=groups)


def _savers(stage: str, config: AlignConfig, kind: str, cards: int) -> Sequence[Saver]:
    """What can help a stage, in the order in which to try it."""
    smaller, shorter = _smaller("base.model"), partial(_halved, "sampling", "total_tokens")
    rounded = [] if kind == "cpu" else [_rounded_base]  # a processor is slow at it
    if stage in ("policy", "trajectory"):
        return [_fewer_pairs, _checkpointing, partial(_shared, cards), _adapter, *rounded, shorter, smaller]
    if stage == "base" and config.base.model == "train":
        return _of_small_training("base")
    if stage in ("reward", "gold") and config.reward.model == "train":
        return _of_small_training("reward")
    if stage in ("reward", "scores", "gold"):
        return [partial(_fewer_tokens, "reward"), shorter, _smaller("reward.model")]
    if stage in ("base", "anchor"):
        return [_smaller("evaluation.anchor") if stage == "anchor" else smaller]
    if stage == "reference":
        return [partial(_fewer_tokens, "sampling"), *rounded, shorter, smaller]
    groups = ("sampling", "evaluation") if stage in ("before", "after") else ("sampling",)
    return [partial(_fewer_tokens, "sampling"), partial(_in_bf16, groups), shorter, smaller]


def _of_small_training(group: str) -> Sequence[Saver]:
    """Of a model that is made here, whose shape hangs on the last of these."""
    halved = [partial(_halved, group, name) for name in ("batch_size", "context")]
    return [*halved, lambda config: Saving(f"{group}.width to less than {getattr(config, group).width}")]


def _fewer_pairs(config: AlignConfig) -> Saving | None:
    """The largest part of a batch that leaves the step as it is."""
    dpo = config.dpo
    if dpo.batch_size == 1:
        return None
    fewer = max(size for size in range(1, dpo.batch_size) if dpo.batch_size % size == 0)
    if dpo.global_batch:
        return Saving(f"dpo.batch_size to {fewer}", {"dpo": {"batch_size": fewer}})
    times = dpo.accumulation * dpo.batch_size // fewer
    told = f"dpo.batch_size to {fewer} and dpo.accumulation to {times}"
    return Saving(told, {"dpo": {"batch_size": fewer, "accumulation": times}})


def _checkpointing(config: AlignConfig) -> Saving | None:
    told = Saving("dpo.gradient_checkpointing to true", {"dpo": {"gradient_checkpointing": True}})
    return None if config.dpo.gradient_checkpointing else told


def _shared(cards: int, config: AlignConfig) -> Saving | None:
    if cards == 1 or config.dpo.sharding == "fsdp" or config.dpo.adapter != "none":
        return None
    processes = max(cards, config.dpo.processes)
    told = f"dpo.processes to {processes} and dpo.sharding to fsdp"
    return Saving(told, {"dpo": {"processes": processes, "sharding": "fsdp"}})


def _adapter(config: AlignConfig) -> Saving | None:
    fields = {"adapter": "lora", "sharding": "none"}
    return Saving("dpo.adapter to lora", {"dpo": fields}) if config.dpo.adapter == "none" else None


def _rounded_base(config: AlignConfig) -> Saving | None:
    """Under an adapter alone: a full training's small steps would be lost."""
    if config.base.load_in == "4bit" or config.dpo.sharding == "fsdp":
        return None
    wanted = {"precision": "bf16", "adapter": "lora"}
    missing = [f"dpo.{name} to {value}" for name, value in wanted.items() if getattr(config.dpo, name) != value]
    return Saving(" and ".join(["base.load_in to 4bit", *missing]), {"dpo": wanted, "base": {"load_in": "4bit"}})


def _in_bf16(groups: Sequence[str], config: AlignConfig) -> Saving | None:
    """All of them at once: what is done one after the other takes what the largest does."""
    left = [group for group in groups if getattr(config, group).precision != "bf16"]
    told = f"{' and '.join(f'{group}.precision' for group in left)} to bf16"
    return Saving(told, {group: {"precision": "bf16"} for group in left}) if left else None


def _fewer_tokens(group: str, config: AlignConfig) -> Saving:
    tokens = (getattr(config, group).batch_tokens or CPU_TOKENS) // 2
    return Saving(f"{group}.batch_tokens to {tokens:,}", {group: {"batch_tokens": tokens}})


def _halved(group: str, name: str, config: AlignConfig) -> Saving:
    half = getattr(getattr(config, group), name) // 2
    return Saving(f"{group}.{name} to {half:,}", {group: {name: half}})


def _smaller(field: str) -> Saver:
    return lambda _: Saving(f"{field} to a smaller model")
