"""The flags of the commands, made from the configuration: one optional flag per field, a text until it is checked."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, get_args, get_origin

from cyclopts import Parameter
from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from alignment.config import AlignConfig, Group
from alignment.config.loading import leaves
from alignment.errors import ConfigError, Fault
from alignment.kinds import Kinds

CONFIGURATION = "Configuration"  # the panel of the help that has them all


def flag(field: str) -> str:
    """How a field is given on the command line: `--dpo.learning-rate`."""
    return f"--{field.replace('_', '-')}"


def overrides(flags: BaseModel | None) -> dict[str, Any]:
    """The fields that were given, nested as the YAML is."""
    return flags.model_dump(exclude_unset=True) if flags is not None else {}


@contextmanager
def named_by_flags(given: Mapping[str, Any]) -> Iterator[None]:
    """Let a ConfigError name what a flag gave by the flag: `--dpo.beta 99` for `dpo.beta = '99'`.

    `given` are the overrides.
    """
    try:
        yield
    except ConfigError as error:
        faults = [Fault(fault.fields, _by_flags(fault.message, given)) for fault in error.faults]
        raise ConfigError(_by_flags(str(error), given), faults) from error


def groups() -> dict[str, str]:
    """The groups of the configuration in the order of the stages, those within others too, each with what it is."""
    return dict(_groups(AlignConfig))


def takes(info: FieldInfo) -> str:
    """What a field takes, as in `float in 0..1`, `int in 1..1,024` or `one of hinge, sigmoid`."""
    if choices := _choices(info):
        return f"one of {', '.join(choices)}"
    kind = get_origin(info.annotation) or info.annotation
    name = {bool: "true or false", str: "text", tuple: "list", dict: "mapping"}.get(kind)  # type: ignore[arg-type]
    return name or f"{getattr(kind, '__name__', 'value')}{_bounds(info)}"


def _by_flags(message: str, given: Mapping[str, Any]) -> str:
    for field, value in leaves(given):
        named = re.escape(field) + r"(?: = (?:" + re.escape(repr(value)) + "|" + re.escape(str(value)) + r"))"
        message = re.sub(rf"(?<![\w.-]){named}", lambda _, f=field, v=value: f"{flag(f)} {v}", message)  # type: ignore[misc]
    return message


def _groups(group: type[Group], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, info in group.model_fields.items():
        if _is_group(info):
            yield f"{prefix}{name}", str(info.annotation.__doc__ if not prefix else info.description)
            yield from _groups(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]


def _is_group(info: FieldInfo) -> bool:
    return isinstance(info.annotation, type) and issubclass(info.annotation, Group)


def _choices(info: FieldInfo) -> tuple[str, ...]:
    names = next((kinds.names() for kinds in info.metadata if isinstance(kinds, Kinds)), ())
    return tuple(names or (get_args(info.annotation) if get_origin(info.annotation) is Literal else ()))


def _bounds(info: FieldInfo) -> str:
    found = {
        name: getattr(each, name) for each in info.metadata for name in ("ge", "gt", "le", "lt") if hasattr(each, name)
    }
    if {"ge", "le"} <= set(found):
        return f" in {_number(found['ge'])}..{_number(found['le'])}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    told = ", ".join(f"{words[name]} {_number(found[name])}" for name in words if name in found)
    return f" {told}" if told else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.12g}"


def _default(info: FieldInfo) -> str:
    if info.default in ("", (), {}):
        return "none"
    return str(info.default).lower() if isinstance(info.default, bool) else str(info.default)


def _flag_of(info: FieldInfo) -> Any:
    described = f"{str(info.description).replace('`', '')} [{takes(info)}; default {_default(info)}]"
    return (str | None, Field(None, description=described))


def _flags(group: type[Group]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, info in group.model_fields.items():
        if _is_group(info):
            fields[name] = (Optional[_flags(info.annotation)], Field(None, description=info.annotation.__doc__))  # type: ignore[arg-type] # noqa: UP045
        else:
            fields[name] = _flag_of(info)
    return create_model(f"{group.__name__}Flags", __doc__=group.__doc__, **fields)


# Types, bounds and cross-checks are left to AlignConfig, which sees the file and the flags together.
if TYPE_CHECKING:
    Flags = BaseModel | None
else:
    Flags = Annotated[Optional[_flags(AlignConfig)], Parameter(name="*", negative=(), group=CONFIGURATION)]  # noqa: UP045
