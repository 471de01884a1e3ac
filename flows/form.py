"""One way for a flow to take a whole configuration: what it starts from, and a parameter for each group of changes."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from alignment.config import AlignConfig
from flows.flow import ALIGNMENT, NamedFlow, called_here, make
from flows.form_schema import draw
from flows.start_from import FIELD
from flows.submission import submission
from tasks.run_names import name_run

R = TypeVar("R")


class ConfigFlow(NamedFlow[R], Generic[R]):
    """A flow that is called with one AlignConfig, `align(config)`, or with its groups by name, as a form sends them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As any flow; its form is drawn from the configuration."""
        super().__init__(*args, **kwargs)
        self.parameters = draw(self.parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it as any flow."""
        args, kwargs = by_groups(inspect.signature(self.fn), args, kwargs)
        return super().__call__(*args, **kwargs)

    def with_options(self, **options: Any) -> Any:
        """A copy with other options, and the same form."""
        made = super().with_options(**options)
        made.parameters = draw(made.parameters)
        return made


def config_flow(
    name: str, run_name: Callable[[AlignConfig], str] | None = None, *, own_base: bool = True
) -> Callable[[Callable[..., R]], ConfigFlow[R]]:
    """Make a flow of `body(config, …)`; a run that nobody named is named by `run_name`, else after flow and model."""

    def decorate(body: Callable[..., R]) -> ConfigFlow[R]:
        @functools.wraps(body)
        def named(config: AlignConfig, *others: Any, **kwargs: Any) -> R:
            name_run(run_name(config) if run_name else f"{name} {config.registry.model_name}")
            return body(config, *others, **kwargs)

        made: ConfigFlow[R] = make(ConfigFlow, form(named, own_base), name, ALIGNMENT)
        return made

    return decorate


def by_groups(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments with a configuration that comes first spread over the parameters of its groups."""
    if not args or not isinstance(args[0], AlignConfig):
        return args, kwargs
    config, *rest = args
    groups = {name: getattr(config, name) for name in AlignConfig.model_fields} | {FIELD: ""}
    others = [name for name in signature.parameters if name not in groups]
    given = groups | dict(zip(others, rest, strict=False))
    if len(rest) > len(others) or given.keys() & kwargs.keys():
        raise TypeError("beside a whole configuration only what is no part of it may be given, once; change it instead")
    return (), given | kwargs


def form(body: Callable[..., R], own_base: bool = True) -> Callable[..., R]:
    """`body(config, …)` as a function of `start_from`, of the fields of AlignConfig, and of what else the body takes.

    What is given of a field's group is laid over what `start_from` names (`read_start`); a configuration in the first
    place is taken as it is. Everything that would stop the run raises one ConfigError before the body is called. So
    does a file of code, and a judge that the worker's environment does not allow to have a key, unless this process
    called the flow. `own_base` is as in `faults_of`.
    """
    config, *others = inspect.signature(body).parameters.values()
    if config.annotation is not AlignConfig:
        raise TypeError(f"{body.__name__}: its first parameter is {config}, expected an AlignConfig")

    @functools.wraps(body)
    def with_groups(*args: Any, **kwargs: Any) -> R:
        args, kwargs = by_groups(signature, args, kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        start = given.arguments.pop(FIELD)
        fields = {name: given.arguments.pop(name) for name in AlignConfig.model_fields}
        changes = {name: value for name, value in fields.items() if value is not None}
        found = submission(start, changes, called_here=called_here(), own_base=own_base)
        return body(found.require_sound(start or "parameters", changes), **given.arguments)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [
            inspect.Parameter(FIELD, kind, default="", annotation=str),
            *(inspect.Parameter(name, kind, default=None, annotation=Any) for name in AlignConfig.model_fields),
            *others,
        ],
        return_annotation=inspect.signature(body).return_annotation,
    )
    with_groups.__signature__ = signature  # type: ignore[attr-defined]
    return with_groups
