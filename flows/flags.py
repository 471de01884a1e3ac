"""The command line's flags, made from the configuration: the same fields, each of them optional."""

from typing import Annotated, Any, Optional

from cyclopts import Parameter
from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from alignment.config import AlignConfig, Group


def _optional(info: FieldInfo) -> Any:
    annotation: Any = Optional[info.annotation]  # noqa: UP045 - the type is only known at run time
    return (annotation, Field(None, description=f"{info.description} [{info.default}]"))


def _group(group: type[Group]) -> Any:
    fields: dict[str, Any] = {name: _optional(info) for name, info in group.model_fields.items()}
    return create_model(f"{group.__name__}Flags", __doc__=group.__doc__, **fields)


def _flags() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, info in AlignConfig.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Group):
            fields[name] = (Optional[_group(info.annotation)], Field(None, description=info.annotation.__doc__))  # noqa: UP045
        else:
            fields[name] = _optional(info)
    return create_model("Flags", **fields)


# Bounds and cross-checks are left to AlignConfig, which sees the file and the flags together.
Flags = Annotated[Optional[_flags()], Parameter(name="*", negative=())]  # type: ignore[misc] # noqa: UP045


def overrides(flags: BaseModel | None) -> dict[str, Any]:
    """The fields that were given, nested as the YAML is."""
    return flags.model_dump(exclude_unset=True) if flags is not None else {}
