"""How long a stage will take, by earlier runs of the same stage: pure arithmetic on what their manifests say."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from alignment.config import AlignConfig
from alignment.reach import pairs_of_a_prompt

AMOUNTS = {"steps", "batch_size", "global_batch", "accumulation", "rows", "count", "samples_per_prompt", "bootstrap"}
"""Fields that say how much is to be done: twice as much takes twice as long.

`prompts.eval_count` is none: it grows along with `prompts.count`, and the time by the one, not by both.
"""

SIZES = {
    "adapter",
    "context",
    "engine",
    "hub",
    "kind",
    "layers",
    "path",
    "precision",
    "total_tokens",
    "trainer",
    "vocab_size",
    "width",
}
"""Fields that say how long each of it takes: a run of another size tells nothing."""

FREE = AMOUNTS | {"seed", "learning_rate", "min_opening"}
"""Fields in which two base models may differ and still take as long to write."""

COUNTED = {"samples": "samples", "scores": "scored", "reference": "scored", "before": "samples", "after": "samples"}
"""Stages whose time goes by what they make, with the name of its count."""


@dataclass(frozen=True)
class Earlier:
    """An earlier run of a stage."""

    seconds: float
    read: Any
    """What it read of its configuration, as its manifest says."""
    counts: Mapping[str, int] = field(default_factory=dict)
    base: Any = None
    """What decided the base model that it worked with; None where it worked with none."""


def seconds(
    read: Any, earlier: Sequence[Earlier], *, base: Any = None, count: str = "", asked: int = 0
) -> float | None:
    """The seconds that a stage will take which reads `read`, by the most alike of the `earlier` runs, newest first.

    They are scaled by the amounts that both read, or by `asked` to the earlier run's `count`. None where no run was of
    the same sizes on a base model alike.
    """
    wanted = dict(leaves(read))
    alike = [each for each in earlier if _are_alike(wanted, dict(leaves(each.read)), SIZES) and _is_base(base, each)]
    if not alike:
        return None
    chosen = max(alike, key=lambda each: _equal(wanted, dict(leaves(each.read))))
    made = chosen.counts.get(count, 0)
    if count and made and asked:
        return chosen.seconds * asked / made
    found = dict(leaves(chosen.read))
    amounts = [path for path in wanted.keys() & found.keys() if path[-1] in AMOUNTS]
    return chosen.seconds * prod(_ratio(wanted[path], found[path]) for path in amounts)


def items(config: AlignConfig, stage: str) -> int:
    """How much a stage of `COUNTED` makes at most; 0 of another one."""
    if stage in {"samples", "scores"}:
        return config.prompts.count * config.sampling.samples_per_prompt
    if stage == "reference":  # without the pairs of others, whose number nobody knows here
        return config.prompts.count * (pairs_of_a_prompt(config) or 0)
    return config.prompts.eval_count * config.evaluation.samples_per_prompt if stage in COUNTED else 0


def earlier_runs(manifests: Sequence[Mapping[str, Any]], bases: Sequence[Mapping[str, Any]]) -> list[Earlier]:
    """What the manifests of a stage say of its runs, with the base models that the manifests of `bases` made."""
    made = {str(each.get("digest")): _mapping(each, "inputs").get("config") for each in bases}
    return [
        Earlier(
            seconds=each["seconds"],
            read=inputs["config"],
            counts={name: count for name, count in _mapping(each, "counts").items() if isinstance(count, int)},
            base=made.get(str(_mapping(inputs, "parents").get("base"))),
        )
        for each in manifests
        if isinstance(each.get("seconds"), int | float) and "config" in (inputs := _mapping(each, "inputs"))
    ]


def _mapping(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a manifest; empty where it has none, as a file that another hand wrote may."""
    found = manifest.get(name)
    return found if isinstance(found, Mapping) else {}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The single values below a JSON value, each with the names that lead to it."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from leaves(below, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for number, below in enumerate(value):
            yield from leaves(below, (*path, str(number)))
    else:
        yield path, value


def _is_base(base: Any, earlier: Earlier) -> bool:
    if base is None or earlier.base is None:
        return base is None
    one, other = dict(leaves(base)), dict(leaves(earlier.base))
    names = {path[-1] for path in one.keys() | other.keys() if path}
    return _are_alike(one, other, names - FREE)


def _are_alike(one: Mapping[Any, Any], other: Mapping[Any, Any], names: set[str]) -> bool:
    """Whether two sets of values agree in every field of these names that one of them has."""
    paths = {path for path in one.keys() | other.keys() if path and path[-1] in names}
    return all(path in one and path in other and one[path] == other[path] for path in paths)


def _equal(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> int:
    return sum(path in other and other[path] == value for path, value in one.items())


def _ratio(wanted: Any, found: Any) -> float:
    numbers = isinstance(wanted, int | float) and isinstance(found, int | float)
    return wanted / found if numbers and wanted > 0 and found > 0 else 1.0
