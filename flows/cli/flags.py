"""The flags of the commands, made from the configuration: one optional flag per field, a text until it is checked."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, get_args, get_origin

from cyclopts import Parameter
from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from alignment.config import AlignConfig, Group
from alignment.kinds import Kinds


def _text(info: FieldInfo) -> Any:
    names = next((kinds.names() for kinds in info.metadata if isinstance(kinds, Kinds)), ())
    names = names or (get_args(info.annotation) if get_origin(info.annotation) is Literal else ())
    told = str(info.description)
    missing = [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", told)]
    choices = "" if not missing else f"; or {', '.join(missing)}" if missing != list(names) else f": {', '.join(names)}"
    return (str | None, Field(None, description=f"{told}{choices} [{info.default}]"))


def _flags(group: type[Group]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, info in group.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Group):
            fields[name] = (Optional[_flags(info.annotation)], Field(None, description=info.annotation.__doc__))  # noqa: UP045
        else:
            fields[name] = _text(info)
    return create_model(f"{group.__name__}Flags", __doc__=group.__doc__, **fields)


# Types, bounds and cross-checks are left to AlignConfig, which sees the file and the flags together.
if TYPE_CHECKING:
    Flags = BaseModel | None
else:
    Flags = Annotated[Optional[_flags(AlignConfig)], Parameter(name="*", negative=())]  # noqa: UP045


def overrides(flags: BaseModel | None) -> dict[str, Any]:
    """The fields that were given, nested as the YAML is."""
    return flags.model_dump(exclude_unset=True) if flags is not None else {}
