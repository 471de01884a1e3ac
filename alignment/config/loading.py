"""A configuration from a YAML file, from flags or from a form; what cannot be used is refused in one line."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError as PydanticError

from alignment.config.group import Group
from alignment.config.outcome import GridConfig
from alignment.config.whole import AlignConfig
from alignment.errors import ConfigError
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

    Raises ConfigError with one line that names each bad field, its value and its bound, and `source` before those that
    do not come from the overrides.
    """
    try:
        return AlignConfig.model_validate(merge(values, overrides or {}))
    except PydanticError as error:
        found = [_explain(item) for item in error.errors()]
    known = _faults(values) if overrides else found
    faults = [fault for fault in found if fault not in known]
    if theirs := [fault for fault in found if fault in known]:
        faults.append(f"{source}: {'; '.join(theirs)}")
    raise ConfigError("; ".join(faults))


def _faults(values: Mapping[str, Any]) -> list[str]:
    try:
        AlignConfig.model_validate(dict(values))
    except PydanticError as error:
        return [_explain(item) for item in error.errors()]
    return []


def build_grid(**values: Any) -> GridConfig:
    """A sweep's grid from the values that were given; raises ConfigError for one that is out of bounds."""
    try:
        return GridConfig.model_validate({name: value for name, value in values.items() if value is not None})
    except PydanticError as error:
        faults = [item for item in error.errors() if item["type"] != "too_short"]  # it follows from a bad element
        raise ConfigError(f"sweep: {'; '.join(_explain(item) for item in faults or error.errors())}") from error


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


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown field `{where}`{_did_you_mean(item['loc'])}"
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message
    return f"{where} = {item['input']!r}: {message[0].lower()}{message[1:]}"


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
