"""The pipeline: the stages in their order, the key under which the store finds each result, and what is to be done."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignment.config import AlignConfig
from alignment.kinds import require_known_fields
from alignment.stages.code import code_version, kind_version, library_versions
from alignment.stages.stage import Refs, Stage
from alignment.stages.store import StageRef, Store, digest

KEY_LENGTH = 20  # hexadecimal digits


@dataclass(frozen=True)
class Planned:
    """A stage of a plan, its key, and its result where the store has it; no key where a stage it needs has none."""

    stage: Stage
    key: str | None
    found: StageRef | None


class Pipeline(Mapping[str, Stage]):
    """Stages by name, in an order in which each stands behind those that it needs."""

    def __init__(self, *stages: Stage) -> None:
        """Raises ValueError for two stages of one name."""
        self._stages = {stage.name: stage for stage in stages}
        if len(self._stages) < len(stages):
            raise ValueError(f"two stages of one name among {', '.join(stage.name for stage in stages)}")

    def __getitem__(self, name: str) -> Stage:
        """The stage of this name."""
        return self._stages[name]

    def __iter__(self) -> Iterator[str]:
        """The names, in order."""
        return iter(self._stages)

    def __len__(self) -> int:
        """How many stages there are."""
        return len(self._stages)

    def wanted(self, config: AlignConfig, goal: str = "") -> list[Stage]:
        """The stages that a configuration asks for, in order; with a `goal`, that stage and what it needs alone."""
        stages = [stage for stage in self._stages.values() if stage.when(config)]
        if not goal:
            return stages
        needed = {goal}
        for stage in reversed(stages):
            if stage.name in needed:
                needed.update(stage.needs(config))
        return [stage for stage in stages if stage.name in needed]

    def require_usable(self, config: AlignConfig) -> None:
        """Raise now what a stage would raise later: a file or model that cannot be read, a package that is broken."""
        require_known_fields()
        for stage in self.wanted(config):
            stage.reads(config)
            for kinds, name in stage.uses(config):
                if kinds.origin(name).package:
                    kinds.get(name)

    def plan(self, config: AlignConfig, store: Store, goal: str = "") -> list[Planned]:
        """Every stage that is asked for, with its result where it has been computed before.

        A key is made of the content of what a stage needs, so behind one that is still to be computed nothing is known.
        """
        planned: list[Planned] = []
        refs: dict[str, StageRef] = {}
        for stage in self.wanted(config, goal):
            key = key_of(stage, config, refs) if all(need in refs for need in stage.needs(config)) else None
            found = store.find(stage.name, key) if key else None
            if found is not None:
                refs[stage.name] = found
            planned.append(Planned(stage, key, found))
        return planned


def key_of(stage: Stage, config: AlignConfig, refs: Refs) -> str:
    """The key of a stage's result, given those of the stages that it needs: a hash of its lineage."""
    return digest(lineage(stage, config, refs))[:KEY_LENGTH]


def lineage(stage: Stage, config: AlignConfig, refs: Refs) -> dict[str, Any]:
    """What a stage's key is made of, kept in its manifest: whatever decides its result."""
    return {
        "stage": stage.name,
        "config": stage.reads(config),
        "parents": {name: refs[name].digest for name in stage.needs(config)},
        "code": code_version(stage.module),
        "kinds": {f"{kinds.group}.{name}": kind_version(kinds, name) for kinds, name in stage.uses(config)},
        "libraries": library_versions(stage.libraries),
    }
