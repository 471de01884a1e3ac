"""A group of fields of the configuration, and how kinds of other packages add groups of their own to it."""

import json
from collections.abc import Callable
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, create_model, field_validator
from pydantic_core import PydanticCustomError

from alignment.errors import ConfigError
from alignment.kinds import Kinds
from alignment.yaml_file import read_value


class Group(BaseModel):
    """A group of fields: frozen; unknown names are refused, and a number may be given as text, not as true or false."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        parts = value if isinstance(value, list | tuple) else [value]
        wanted = cls.model_fields[str(info.field_name)].annotation
        if wanted is not bool and any(isinstance(part, bool) for part in parts):
            raise PydanticCustomError("truth", "Input should not be true or false")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _lists_may_be_texts(cls, value: Any, info: ValidationInfo) -> Any:
        """A flag is one text: `[a, b]` or `{a: 1}` as YAML has it, or the only element of a list; empty for none."""
        wanted = get_origin(cls.model_fields[str(info.field_name)].annotation)
        if not isinstance(value, str) or wanted not in (tuple, dict):
            return value
        try:
            found = read_value(value) if value else wanted()
        except ConfigError as error:
            raise PydanticCustomError("yaml", "{reason}", {"reason": str(error)}) from error
        return [found] if wanted is tuple and isinstance(found, str) else found


G = TypeVar("G", bound=Group)


def json_values(value: Any) -> Any:
    """A value in which texts that are JSON, such as `false` or `3`, are what they say: YAML files hold texts alone."""
    if isinstance(value, dict):
        return {name: json_values(below) for name, below in value.items()}
    if isinstance(value, list):
        return [json_values(below) for below in value]
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def at_most(group: G, name: str, low: str, high: str) -> G:
    """The group; raises ValueError where its field `low` exceeds its field `high`."""
    if getattr(group, low) > getattr(group, high):
        raise ValueError(f"{name}.{low} = {getattr(group, low)} exceeds {name}.{high} = {getattr(group, high)}")
    return group


def multiple(group: G, name: str, product: str, factor: str) -> G:
    """The group; raises ValueError where its field `product` is not a multiple of its field `factor`."""
    whole, part = getattr(group, product), getattr(group, factor)
    if whole % part:
        raise ValueError(f"{name}.{product} = {whole} is not a multiple of {name}.{factor} = {part}")
    return group


def open_to(*kinds: Kinds[Any]) -> Callable[[type[G]], type[G]]:
    """Add a group of fields for each installed kind that brings settings of its own, under the kind's name.

    Raises ConfigError where the name is one of the group's own fields, or what is brought is no `Group`.
    """

    def extend(group: type[G]) -> type[G]:
        added: dict[str, Any] = {}
        for each in kinds:
            for name, fields in each.fields().items():
                if not name.isidentifier() or name in group.model_fields or name in added:
                    raise ConfigError(f"{name!r} of the {each.group} brings fields, and needs another name for that")
                if not (isinstance(fields, type) and issubclass(fields, Group)):
                    raise ConfigError(f"the fields of {name!r} of the {each.group} are no `alignment.config.Group`")
                added[name] = (fields, Field(default_factory=fields, description=fields.__doc__))
        if not added:
            return group
        return create_model(group.__name__, __base__=group, __doc__=group.__doc__, __module__=group.__module__, **added)

    return extend
