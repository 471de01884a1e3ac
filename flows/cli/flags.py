"""The command line's flags, made from the configuration: the same fields, each of them optional and still a text."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, get_args, get_origin

from cyclopts import Parameter
from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from alignment.config import AlignConfig, Group


def _text(info: FieldInfo) -> Any:
    choices = f": {', '.join(get_args(info.annotation))}" if get_origin(info.annotation) is Literal else ""
    return (str | None, Field(None, description=f"{info.description}{choices} [{info.default}]"))


def _group(group: type[Group]) -> Any:
    fields: dict[str, Any] = {name: _text(info) for name, info in group.model_fields.items()}
    return create_model(f"{group.__name__}Flags", __doc__=group.__doc__, **fields)


def _flags() -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, info in AlignConfig.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Group):
            fields[name] = (Optional[_group(info.annotation)], Field(None, description=info.annotation.__doc__))  # noqa: UP045
        else:
            fields[name] = _text(info)
    return create_model("Flags", **fields)


# Types, bounds and cross-checks are left to AlignConfig, which sees the file and the flags together.
if TYPE_CHECKING:
    Flags = BaseModel | None
else:
    Flags = Annotated[Optional[_flags()], Parameter(name="*", negative=())]  # noqa: UP045


def overrides(flags: BaseModel | None) -> dict[str, Any]:
    """The fields that were given, nested as the YAML is."""
    return flags.model_dump(exclude_unset=True) if flags is not None else {}
