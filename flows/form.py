"""One way for a flow to take a whole configuration: a parameter a group, as Prefect's form can draw them."""

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

from alignment.config import AlignConfig, Group, build_config
from alignment.errors import ConfigError
from alignment.kinds import PAIRS, REWARDS
from alignment.rewards.function_file import function_file
from alignment.rewards.judge_client import is_local
from flows.flow import ALIGNMENT, NamedFlow, called_here, make
from tasks.run_names import name_run

R = TypeVar("R")

JUDGE_URLS = "PLUMBLINE_JUDGE_URLS"


class ConfigFlow(NamedFlow[R], Generic[R]):
    """A flow that is called with one AlignConfig, `align(config)`, or with its groups by name, as a form sends them."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it as any flow."""
        args, kwargs = by_groups(inspect.signature(self.fn), args, kwargs)
        return super().__call__(*args, **kwargs)


def config_flow(
    name: str, run_name: Callable[[AlignConfig], str] | None = None
) -> Callable[[Callable[..., R]], ConfigFlow[R]]:
    """Make a flow of `body(config, …)`; a run that nobody named is named by `run_name`, else after flow and model."""

    def decorate(body: Callable[..., R]) -> ConfigFlow[R]:
        @functools.wraps(body)
        def named(config: AlignConfig, *others: Any, **kwargs: Any) -> R:
            name_run(run_name(config) if run_name else f"{name} {config.registry.model_name}")
            return body(config, *others, **kwargs)

        made: ConfigFlow[R] = make(ConfigFlow, form(named), name, ALIGNMENT)
        return made

    return decorate


def by_groups(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments with a configuration that comes first spread over the parameters of its groups."""
    if not args or not isinstance(args[0], AlignConfig):
        return args, kwargs
    config, *rest = args
    groups = {name: getattr(config, name) for name in AlignConfig.model_fields}
    others = [name for name in signature.parameters if name not in groups]
    given = groups | dict(zip(others, rest, strict=False))
    if len(rest) > len(others) or given.keys() & kwargs.keys():
        raise TypeError("beside a whole configuration only what is no part of it may be given, once; change it instead")
    return (), given | kwargs


def form(body: Callable[..., R]) -> Callable[..., R]:
    """`body(config, …)` as a function whose parameters are the fields of AlignConfig, then the body's others.

    A configuration in the first place is taken for its fields.

    Defaults are literal, as the form needs; the docstring gets a line for each field, which the form shows. Groups that
    contradict each other raise ConfigError when it is called: a form checks each by itself. So does a file of code, and
    a judge that the worker's environment does not allow to have a key, unless this process called the flow.
    """
    config, *others = inspect.signature(body).parameters.values()
    if config.annotation is not AlignConfig:
        raise TypeError(f"{body.__name__}: its first parameter is {config}, expected an AlignConfig")

    @functools.wraps(body)
    def with_groups(*args: Any, **kwargs: Any) -> R:
        args, kwargs = by_groups(signature, args, kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        fields = {name: given.arguments.pop(name) for name in AlignConfig.model_fields}
        made = build_config(fields, source="parameters")
        if not called_here():
            require_no_code(made)
            require_allowed_endpoints(made)
        return body(made, **given.arguments)

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


def require_no_code(config: AlignConfig) -> None:
    """Raise ConfigError where the configuration names a file of code to be run: whoever can fill in a form could."""
    scoring = (config.reward, *config.reward.parts, *config.evaluation.gold)
    if found := next((each.function for each in scoring if each.function and function_file(each.function)), ""):
        raise ConfigError(
            f"reward.function = {found}: a file of code is taken from the command line, a YAML file or Python alone, "
            "and from no form or request; install the function as an entry point of the group "
            "plumbline.reward_functions, and give its name"
        )


def require_allowed_endpoints(config: AlignConfig) -> None:
    """Raise ConfigError where a key would be sent to an endpoint that the environment does not allow.

    Allowed are the base URLs in PLUMBLINE_JUDGE_URLS, or without that variable this machine's own addresses: whoever
    can fill in a form could have the worker's key sent anywhere else. Without a key any endpoint may be asked.
    """
    allowed = [url.strip().rstrip("/") for url in os.environ.get(JUDGE_URLS, "").split(",") if url.strip()]
    scoring = (config.reward, *config.reward.parts, *config.evaluation.gold)
    asked = [each.judge for each in scoring if each.kind == "judge" or REWARDS.origin(each.kind).package]
    if config.pairs.source == "judged" or PAIRS.origin(config.pairs.source).package:
        asked.append(config.reward.judge)
    for judge in asked:
        permitted = judge.url in allowed if allowed else is_local(judge.url)
        if os.environ.get(judge.api_key_env) and not permitted:
            raise ConfigError(
                f"reward.judge.url = {judge.url}: the worker does not send the key in {judge.api_key_env} there for a "
                f"form or a request; add the address to {JUDGE_URLS} in the worker's environment, or start the run "
                "from the command line"
            )


def _bounded(info: Any) -> Any:
    """A field's type with its bounds, which Prefect reads off a parameter as pydantic does off a field."""
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


def _describe(info: Any) -> str:
    if isinstance(info.annotation, type) and issubclass(info.annotation, Group):
        return " ".join((info.annotation.__doc__ or "").split())
    return str(info.description)
