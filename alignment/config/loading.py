"""A configuration from a YAML file, from flags or from a form; what cannot be used is refused in one line."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError as PydanticError

from alignment.config.group import G, Group
from alignment.config.outcome import GridConfig
from alignment.config.whole import AlignConfig
from alignment.errors import ConfigError, Fault
from alignment.yaml_file import read_yaml

RENAMED: Mapping[str, str] = {"prompts.mode": "prompts.source"}
"""The dotted names of fields that earlier releases had, each with what it is called now."""


GONE: Mapping[str, str] = {
    "sampling.batch_size": "batches are given in tokens now; delete the line, and how many fit is found, or set "
    "`sampling.batch_tokens` to that number times the tokens of prompt and completion"
}
"""The dotted names of fields that earlier releases had and none stands for, each with what to do."""


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> AlignConfig:
    """Read a YAML file and lay `overrides` (nested as the YAML is) over it.

    Raises ConfigError if the file is missing, is not YAML, or holds an unknown field or a value out of bounds; what is
    wrong with an override is not said of the file.
    """
    return build_config(read_yaml(Path(path)), source=str(path), overrides=overrides or {})


def build_config(
    values: Mapping[str, Any], source: str = "config", overrides: Mapping[str, Any] | None = None
) -> AlignConfig:
    """Validate nested values, `overrides` laid over them.

    Raises ConfigError that names every fault, each with its fields, value and bound, on one line; `source` stands
    before those in which no field of the overrides has a part.
    """
    config, faults = examine(merge(values, overrides or {}))
    if faults:
        raise as_error(faults, source, overrides or {})
    return config


def examine(values: Mapping[str, Any]) -> tuple[AlignConfig, list[Fault]]:
    """The configuration of nested values without those that are at fault, and every fault.

    Pydantic stops at the first contradiction between fields, and looks at none while a field is out of its bounds. So
    what is at fault is left out, and the rest looked at again; what such a field's default then contradicts is no fault
    of anybody's.
    """
    left, faults, touched = dict(values), list[Fault](), set[str]()
    while True:
        try:
            return AlignConfig.model_validate(left), faults
        except PydanticError as error:
            found = [_fault(item) for item in error.errors()]
        faults += [fault for fault in found if touched.isdisjoint(fault.fields)]
        for fault in found:
            touched.update(fault.fields, map(_with_its_list, fault.fields))
            left = _shorter(left, fault.fields)


def _with_its_list(field: str) -> str:
    """The list that an element's field is in, as `reward.parts` of `reward.parts.0.name`; else the field itself."""
    return re.split(r"\.\d+(?:\.|$)", field, maxsplit=1)[0]


def _shorter(values: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Nested values without some fields; where none of these is there, without their groups, or without anything."""
    for named in (fields, [field.partition(".")[0] for field in fields]):
        left = values
        for field in named:
            left = _without(left, field.split("."))
        if left != values:
            return left
    return {}


def as_error(faults: Sequence[Fault], source: str, overrides: Mapping[str, Any]) -> ConfigError:
    """One line that tells of every fault: first those in which an override has a part, then those of `source`."""
    given = {name for name, _ in leaves(overrides)}

    def is_given(fault: Fault) -> bool:
        return any(
            f"{field}.".startswith(f"{name}.") or name.startswith(f"{field}.")
            for field in fault.fields
            for name in given
        )

    told = [fault.message for fault in faults if is_given(fault)]
    if theirs := [fault.message for fault in faults if not is_given(fault)]:
        told.append(f"{source}: {'; '.join(theirs)}")
    return ConfigError("; ".join(told), faults)


def as_fault(message: str) -> Fault:
    """A sentence as the fault of the fields that it names, in its order."""
    names = (name for name in re.findall(r"[a-z_]+(?:\.[a-z_0-9]+)+", message) if _is_field(name))
    return Fault(tuple(dict.fromkeys(names)), message)


def build_grid(**values: Any) -> GridConfig:
    """A sweep's grid from the values that were given; raises ConfigError for one that is out of bounds."""
    return build_group(GridConfig, "sweep", values)


def build_group(group: type[G], source: str, values: Mapping[str, Any]) -> G:
    """A group from the values that were given, None for one that was not; raises ConfigError, which names `source`."""
    try:
        return group.model_validate({name: value for name, value in values.items() if value is not None})
    except PydanticError as error:
        faults = [item for item in error.errors() if item["type"] != "too_short"]  # it follows from a bad element
        told = "; ".join(_fault(item).message for item in faults or error.errors())
        raise ConfigError(f"{source}: {told}") from error


def merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested `overrides` over `values`, group by group."""
    merged = dict(values)
    for name, value in overrides.items():
        below = merged.get(name)
        merged[name] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def flatten(config: AlignConfig) -> dict[str, Any]:
    """Every field under its dotted name (`dpo.beta`), as MLflow's params and the flags spell it."""

    def fields(group: Group, values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            below = getattr(group, name)
            if isinstance(below, Group):
                yield from fields(below, value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    return dict(fields(config, config.model_dump(), ""))


def _fault(item: Any) -> Fault:
    """One of pydantic's errors in our words."""
    where = ".".join(map(str, item["loc"]))
    message = _explain(item, where)
    named = as_fault(message).fields if item["type"] == "value_error" else ()
    return Fault(named or (where,), message)


def _explain(item: Any, where: str) -> str:
    if item["type"] == "extra_forbidden":
        return f"unknown field `{where}`{_did_you_mean(item['loc'])}"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    return f"{where} = {item['input']!r}: {message[0].lower()}{message[1:]}"


def _without(values: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Nested values without the one at `path`, or without what holds it and is no group."""
    below = {str(name): name for name in values}
    if path[0] not in below:
        return dict(values)
    name = below[path[0]]
    inner = values[name]
    rest = {key: value for key, value in values.items() if key != name}
    if len(path) > 1 and isinstance(inner, Mapping):
        return rest | {name: _without(inner, path[1:])}
    return rest


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values below nested ones, each under its dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_field(name: str) -> bool:
    """Whether a dotted name is one of a field, or of a group within a group."""
    group: Any = AlignConfig
    *groups, last = name.split(".")
    for part in groups:
        info = getattr(group, "model_fields", {}).get(part)
        group = info and info.annotation
    return bool(groups) and last in getattr(group, "model_fields", {})


def _did_you_mean(location: tuple[Any, ...]) -> str:
    from difflib import get_close_matches

    if now := RENAMED.get(".".join(map(str, location))):
        return f": it is called `{now}` now"
    if instead := GONE.get(".".join(map(str, location))):
        return f": {instead}"
    group: Any = AlignConfig
    for part in location[:-1]:
        group = getattr(group, "model_fields", {}).get(str(part))
        group = getattr(group, "annotation", None)
    close = get_close_matches(str(location[-1]), list(getattr(group, "model_fields", {})), n=1)
    return f", did you mean `{'.'.join([*map(str, location[:-1]), close[0]])}`?" if close else ""
