"""The fields that make a stage take less memory, what to set them to, and what it takes then by the estimate."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from alignment.batching import CPU_TOKENS
from alignment.config import AlignConfig
from alignment.memory import Memory, gigabytes
from alignment.needs import Shapes, model_of, need

HELPS = 0.9
"""What a change leaves of a stage's memory at most, where it is worth a word."""

MOST = 3


class Saving(NamedTuple):
    """What to set, in words, and as the fields of a configuration; without these it is not known what it saves."""

    told: str
    fields: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - nobody writes into it


Saver = Callable[[AlignConfig], Saving | None]
"""What could be saved of a configuration; None where it is saved already."""


class Saved(NamedTuple):
    """Changes, the configuration with all of them, and what the stage takes then; None where that is not known."""

    by: list[Saving]
    config: AlignConfig
    left: Memory | None


def advice(
    stage: str, config: AlignConfig, shapes: Shapes, kind: str, *, size: int | None = None, cards: int = 1
) -> str:
    """Three fields at most, those first that change the least, and what the stage takes with all of them.

    `size` is what the device has, `cards` how many GPUs there are. Where the shape of the stage's model is not known,
    these are the first three that can help.
    """
    found = saved(stage, config, shapes, kind, size=size, cards=cards)
    sure = [saving.told for saving in found.by if saving.fields]
    guessed = [saving.told for saving in found.by if not saving.fields]
    fields = ", or ".join(filter(None, [", then ".join(sure), *guessed]))
    if found.left is None or not sure:
        return f"set {fields}"
    still = "; that is still too much" if _is_too_much(found.left, size) else ""
    count = {1: "that", 2: "both"}.get(len(sure), "all of them")
    of = {1: "the first", 2: "the first two"}[len(sure)] if guessed else count
    return f"set {fields} (about {gigabytes(found.left.peak)} with {of}{still})"


def saved(
    stage: str, config: AlignConfig, shapes: Shapes, kind: str, *, size: int | None = None, cards: int = 1
) -> Saved:
    """The changes that are advised: of all that can help those that save enough beside the ones before.

    Where sharing the model among the cards does not suffice, what cannot be shared is tried in its place.
    """
    found = _tried(stage, config, shapes, kind, cards, size)
    if found.config.dpo.sharding == "fsdp" and found.left is not None and _is_too_much(found.left, size):
        unshared = Saving("dpo.sharding to none", {"dpo": {"sharding": "none"}})
        other = _tried(stage, _changed(config, unshared.fields), shapes, kind, 0, size)
        if other.left is not None and other.left.peak < found.left.peak:
            return other._replace(by=[*([unshared] if config.dpo.sharding == "fsdp" else []), *other.by])
    return found


def _tried(stage: str, config: AlignConfig, shapes: Shapes, kind: str, cards: int, size: int | None) -> Saved:
    """What is needed until the stage fits, of a stage that does not by the estimate; else all that can help."""
    now, by = need(stage, config, shapes, kind), list[Saving]()
    field, _ = model_of(stage, config, shapes, kind)
    ends = size if size is not None and now is not None and now.peak > size else 0
    for saver in _savers(stage, config, kind, cards, field):
        if len(by) == MOST or (now is not None and now.peak <= ends) or (saving := saver(config)) is None:
            continue
        changed = _changed(config, saving.fields)
        then = need(stage, changed, shapes, kind)
        if now is None or then is None or not saving.fields or then.peak <= HELPS * now.peak:
            by.append(saving)
            config, now = changed, then
    return Saved(by, config, now)


def _is_too_much(memory: Memory, size: int | None) -> bool:
    return size is not None and memory.at_least > size


def _changed(config: AlignConfig, fields: dict[str, dict[str, Any]]) -> AlignConfig:
    """The configuration with other fields, for arithmetic alone: it is not validated."""
    groups = {group: getattr(config, group).model_copy(update=changes) for group, changes in fields.items()}
    return config.model_copy(update=groups)


def _savers(stage: str, config: AlignConfig, kind: str, cards: int, field: str) -> Sequence[Saver]:
    """What can help a stage, in the order in which to try it; `field` names the model by which it takes the most."""
    smaller, shorter = _smaller(field), partial(_halved, "sampling", "total_tokens")
    rounded = [] if kind == "cpu" else [_rounded_base]  # a processor is slow at it
    if stage in ("policy", "trajectory"):
        return [_fewer_pairs, _checkpointing, partial(_shared, cards), _adapter, *rounded, shorter, smaller]
    if stage == "base" and config.base.model == "train":
        return _of_small_training("base")
    if stage in ("reward", "gold") and config.reward.model == "train" and field == "reward.model":
        return _of_small_training("reward")
    if stage in ("base", "anchor", "reward"):  # a copy
        return [smaller]
    if field.startswith(("reward", "evaluation.gold")):
        one = partial(_in_bf16, ["reward"])
        in_bf16 = one if field == "reward.model" else _also(field.replace(".model", ".precision"))
        return [partial(_fewer_tokens, "reward"), in_bf16, shorter, smaller]
    if stage == "reference":
        return [partial(_fewer_tokens, "sampling"), *rounded, shorter, smaller]
    drawn, measured = ("samples", "reference_samples"), ("ranking", "regression")
    groups = [*([] if stage in measured else ["sampling"]), *([] if stage in drawn else ["evaluation"])]
    return [partial(_fewer_tokens, "sampling"), partial(_in_bf16, groups), shorter, smaller]


def _of_small_training(group: str) -> Sequence[Saver]:
    """Of a model that is made here, whose shape hangs on the last of these."""
    halved: list[Saver] = [partial(_halved, group, name) for name in ("batch_size", "context")]
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
    if (
        not cards
        or max(cards, config.dpo.processes) == 1
        or config.dpo.sharding == "fsdp"
        or config.dpo.adapter != "none"
    ):
        return None
    processes = max(cards, config.dpo.processes)
    many = "" if processes == config.dpo.processes else f"dpo.processes to {processes} and "
    return Saving(f"{many}dpo.sharding to fsdp", {"dpo": {"processes": processes, "sharding": "fsdp"}})


def _adapter(config: AlignConfig) -> Saving | None:
    if config.dpo.adapter != "none" or config.dpo.sharding == "fsdp":  # what is shared is all weights
        return None
    return Saving("dpo.adapter to lora", {"dpo": {"adapter": "lora"}})


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


def _fewer_tokens(group: str, config: AlignConfig) -> Saving | None:
    tokens = (getattr(config, group).batch_tokens or CPU_TOKENS) // 2
    return Saving(f"{group}.batch_tokens to {tokens:,}", {group: {"batch_tokens": tokens}}) if tokens else None


def _halved(group: str, name: str, config: AlignConfig) -> Saving | None:
    half = getattr(getattr(config, group), name) // 2
    told = f"{group}.{name} to {half:,}" + (", for shorter texts" if name == "total_tokens" else "")
    return Saving(told, {group: {name: half}}) if half > 1 else None


def _also(field: str) -> Saver:
    """Of one judge among several."""
    return lambda _: Saving(f"{field} to bf16")


def _smaller(field: str) -> Saver:
    return lambda _: Saving(f"{field} to a smaller model")
