"""A plan as a table; it imports neither Prefect nor torch, so it is there at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alignment import capacity, memory, needs
from alignment.config import AlignConfig
from alignment.errors import ConfigError, Fault
from alignment.preflight import require_fitting
from alignment.stages.store import Store
from tasks.devices import require_hosted
from tasks.pipeline import PIPELINE
from tasks.sentences import counted

State = Literal["cached", "to compute", "if need be"]
HEADINGS = ("stage", "key", "state", "memory", "counts")


@dataclass(frozen=True)
class PlannedStage:
    """One stage: whether the store has it, and what it made, or would make at most.

    Behind a stage that is still to be computed nothing is known: where its result comes out as it was before, what
    follows is found in the store. Such a stage has no key, and is computed if need be where the store has some of its.
    """

    name: str
    key: str | None
    state: State
    counts: str
    memory: str = ""
    """What it takes at its fullest, by an estimate, and whether that is `tight` or `too much`; empty where no model is
    in it, or nobody knows that one's shape."""


@dataclass(frozen=True, repr=False)
class Plan:
    """The stages of a run, in order; as a text, and in a notebook, a table."""

    stages: tuple[PlannedStage, ...]
    device: str = ""
    """Where stages with a model would compute, the memory there, and what is not known of it."""
    refusals: tuple[Fault, ...] = ()
    """Why a run is refused for want of memory, and what helps."""

    @property
    def cached(self) -> bool:
        """Whether a run would compute nothing."""
        return all(stage.state == "cached" for stage in self.stages)

    def rows(self) -> Sequence[tuple[str, ...]]:
        """Name, the key's beginning, state, memory and counts of each stage."""
        return [(each.name, (each.key or "–")[:10], each.state, each.memory, each.counts) for each in self.stages]

    def __str__(self) -> str:
        """The table as plain text."""
        rows = [HEADINGS, *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
        padded = (
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )
        told = [f"memory: of {self.device}"] if self.device else []
        return "\n".join([*padded, *told, *(fault.message for fault in self.refusals)])

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        lines = [HEADINGS, ("---",) * len(HEADINGS), *self.rows()]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def make_plan(config: AlignConfig, store: Store) -> Plan:
    """What a run of this configuration would do; nothing is computed.

    Raises ConfigError where a stage that is still to be computed takes more devices than this host has.
    """
    if not capacity.is_assumed():
        require_hosted(PIPELINE, config, store)
    stages, device = [], capacity.device()
    shapes = capacity.shapes(config)
    needed = needs.needs(config, shapes, device.kind)
    for item in PIPELINE.plan(config, store):
        if item.found is not None:
            stages.append(PlannedStage(item.stage.name, item.key, "cached", counted(item.found.counts)))
            continue
        known = item.key is not None or not store.has(item.stage.name)
        state: State = "to compute" if known else "if need be"
        made, takes = item.stage.makes(config), needed.get(item.stage.name)
        told = _beside(takes, device.size) if takes and (item.stage.slots(config) or device.kind == "cpu") else ""
        stages.append(PlannedStage(item.stage.name, item.key, state, made, told))
    return Plan(tuple(stages), _of(device, config, shapes), _refusals(config))


def _of(device: capacity.Device, config: AlignConfig, shapes: needs.Shapes) -> str:
    """Whose memory it is, what the machine itself needs beside a GPU, and whose needs nobody knows."""
    beside = needs.of_machine(config, shapes) if device.kind == "cuda" else {}
    told = [device.told, *([f"of the machine itself {memory.gigabytes(max(beside.values()))}"] if beside else [])]
    if unknown := capacity.unknown(config, shapes):
        told.append(f"not counted: {', '.join(unknown)}, whose config.json is not here and could not be had")
    return "; ".join(told)


def _beside(takes: memory.Memory, size: int | None) -> str:
    """What a stage takes, and how that stands to what there is."""
    told = memory.gigabytes(takes.peak)
    if size is None or (1 + memory.ERROR) * takes.peak <= size:
        return told
    return f"{told}, {'too much' if takes.at_least > size else 'tight'}"


def _refusals(config: AlignConfig) -> tuple[Fault, ...]:
    try:
        require_fitting(config)
    except ConfigError as error:
        return tuple(error.faults)
    return ()
