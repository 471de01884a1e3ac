"""One way for a flow to take a whole configuration: a parameter a group, as Prefect's form can draw them."""

import functools
import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, Generic, TypeVar

from prefect import Flow
from prefect.context import FlowRunContext
from prefect.task_runners import ThreadPoolTaskRunner

from alignment.config import AlignConfig, Group, build_config
from alignment.errors import ConfigError
from alignment.kinds import PAIRS, REWARDS
from alignment.rewards.function_file import function_file
from alignment.rewards.judge_client import is_local
from tasks.home import prepare_environment

R = TypeVar("R")

JUDGE_URLS = "PLUMBLINE_JUDGE_URLS"

_CALLED_HERE: ContextVar[bool] = ContextVar("called_here", default=False)
"""Whether this process called the flow, from the command line or Python, and not a worker for a form or a request."""


class ConfigFlow(Flow[..., R], Generic[R]):
    """A flow that is called with one AlignConfig, `align(config)`, or with its groups by name, as a form sends them."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it as any flow, in an environment that is prepared."""
        prepare_environment()
        args, kwargs = by_groups(inspect.signature(self.fn), args, kwargs)
        called = _CALLED_HERE.set(_CALLED_HERE.get() or FlowRunContext.get() is None)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            _CALLED_HERE.reset(called)

    def with_options(self, **options: Any) -> Any:
        """A copy with other options, which is called in the same ways."""
        made = super().with_options(**options)
        made.__class__ = type(self)
        return made


def config_flow(name: str) -> Callable[[Callable[..., R]], ConfigFlow[R]]:
    """Make a flow of `body(config, …)`; its runs are named after the model, and its tasks run one at a time."""

    def decorate(body: Callable[..., R]) -> ConfigFlow[R]:
        return ConfigFlow(
            form(body),
            name=name,
            flow_run_name=f"{name}-{{registry.model_name}}",
            task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
        )

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
        if not _CALLED_HERE.get():
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
