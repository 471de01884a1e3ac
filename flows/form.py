"""One way for a flow to take a whole configuration: a parameter a group, as Prefect's form can draw them."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from alignment.config import AlignConfig, Group, build_config

R = TypeVar("R")


def form(body: Callable[..., R]) -> Callable[..., R]:
    """`body(config, …)` as a function whose parameters are the fields of AlignConfig, then the body's others.

    Defaults are literal, as the form needs; the docstring gets a line for each field, which the form shows. Groups that
    contradict each other raise ConfigError when it is called: a form checks each by itself.
    """
    config, *others = inspect.signature(body).parameters.values()
    if config.annotation is not AlignConfig:
        raise TypeError(f"{body.__name__}: its first parameter is {config}, expected an AlignConfig")

    @functools.wraps(body)
    def with_groups(*args: Any, **kwargs: Any) -> R:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        fields = {name: given.arguments.pop(name) for name in AlignConfig.model_fields}
        return body(build_config(fields, source="parameters"), **given.arguments)

    signature = inspect.Signature(
        [
            inspect.Parameter(
                name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=info.default, annotation=_bounded(info)
            )
            for name, info in AlignConfig.model_fields.items()
        ]
        + others,
        return_annotation=inspect.signature(body).return_annotation,
    )
    with_groups.__signature__ = signature  # type: ignore[attr-defined]
    lines = (f"    {name}: {_describe(info)}" for name, info in AlignConfig.model_fields.items())
    with_groups.__doc__ = "\n".join([inspect.getdoc(body) or "", "", "Args:", *lines])
    return with_groups


def _bounded(info: Any) -> Any:
    """A field's type with its bounds, which Prefect reads off a parameter as pydantic does off a field."""
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


def _describe(info: Any) -> str:
    if isinstance(info.annotation, type) and issubclass(info.annotation, Group):
        return " ".join((info.annotation.__doc__ or "").split())
    return str(info.description)
