"""What a form, a request or a call asks for: a start and what differs from it, as one configuration with its faults."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from alignment.config import AlignConfig, Group, as_error, examine, merge
from alignment.config.loading import as_fault
from alignment.endpoints import is_local
from alignment.errors import ConfigError, Fault
from alignment.kinds import PAIRS, REWARDS
from alignment.preflight import faults_of
from alignment.rewards.function_file import function_file
from alignment.yaml_file import read_yaml
from flows.settings import find_config, shown_name
from flows.start_from import read_start

JUDGE_URLS = "PLUMBLINE_JUDGE_URLS"
SAMPLING_URLS = "PLUMBLINE_SAMPLING_URLS"


@dataclass(frozen=True)
class Submission:
    """A configuration, without the values that are at fault, and everything that would stop its run."""

    config: AlignConfig
    faults: tuple[Fault, ...]

    def require_sound(self, source: str, changes: Mapping[str, Any]) -> AlignConfig:
        """The configuration. Raises ConfigError that names every fault, `source` before those that no change is in."""
        if self.faults:
            raise as_error(self.faults, source, changes)
        return self.config


def submission(start_from: str, changes: Mapping[str, Any], *, called_here: bool, own_base: bool = True) -> Submission:
    """What starts from `start_from`, as `read_start` takes it, with `changes` by the names of the groups laid over it.

    Unless it was `called_here`, by a person with a shell, no file of code and no endpoint that the environment does not
    allow to have a key may be named. `own_base` is as in `faults_of`. Raises TrackingError where MLflow cannot be
    reached.
    """
    try:
        start = read_start(start_from)
    except ConfigError as error:
        config, faults = examine(_values(changes))
        bounds = (fault for fault in faults if len(fault.fields) == 1)  # the rest hangs on what it starts from
        return Submission(config, (*error.faults, *bounds))
    return _found(start, changes, called_here=called_here, own_base=own_base)


def load_startable(
    path: str | Path, overrides: Mapping[str, Any], *, own_base: bool = True, fitting: bool = True
) -> AlignConfig:
    """A configuration's file, as `load_config` finds it, with `overrides` laid over it.

    Raises ConfigError where it cannot be read, and else one with everything that would stop its run: `own_base` and
    `fitting` are as in `faults_of`.
    """
    file = find_config(path)
    found = _found(read_yaml(file), overrides, called_here=True, own_base=own_base, fitting=fitting)
    return found.require_sound(shown_name(file), overrides)


def _found(
    start: Mapping[str, Any], changes: Mapping[str, Any], *, called_here: bool, own_base: bool, fitting: bool = True
) -> Submission:
    given = _values(changes)
    if start:
        given = {name: _as_values(value) for name, value in given.items()}
    config, faults = examine(merge(start, given))
    further = [] if called_here else list(_not_allowed(config))
    if not further:  # else a file of code is not even looked for
        further = list(faults_of(config, own_base=own_base, fitting=fitting, fetch=called_here))
    known = {field for fault in faults for field in fault.fields}
    return Submission(config, (*faults, *(fault for fault in further if known.isdisjoint(fault.fields))))


def _values(changes: Mapping[str, Any]) -> dict[str, Any]:
    """What is changed, by the names of the groups."""
    fields = AlignConfig.model_fields
    given = {
        name: _given(fields[name].annotation if name in fields else None, value) for name, value in changes.items()
    }
    return {name: value for name, value in given.items() if value is not None}


def _given(kind: Any, value: Any) -> Any:
    """A value without what a form sends for fields that nobody touched: null."""
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return [_given(get_args(kind)[0], each) for each in value]
    if not (isinstance(kind, type) and issubclass(kind, Group) and isinstance(value, Mapping)):
        return value
    fields = kind.model_fields
    found = {name: _given(fields[name].annotation if name in fields else None, below) for name, below in value.items()}
    return {name: below for name, below in found.items() if below is not None}


def _as_values(value: Any) -> Any:
    """A group as the values that were set in it."""
    return value.model_dump(exclude_unset=True) if isinstance(value, Group) else value


def _not_allowed(config: AlignConfig) -> Iterator[Fault]:
    """What a form or a request may not ask for."""
    checks: tuple[Callable[[AlignConfig], None], ...] = (require_no_code, require_allowed_endpoints)
    for check in checks:
        try:
            check(config)
        except ConfigError as error:
            yield as_fault(str(error))


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

    Allowed are the base URLs in PLUMBLINE_JUDGE_URLS, or in PLUMBLINE_SAMPLING_URLS where it draws samples, and without
    that variable this machine's own addresses: whoever can fill in a form could have the worker's key sent anywhere
    else. Without a key any endpoint may be asked.
    """
    scoring = (config.reward, *config.reward.parts, *config.evaluation.gold)
    judges = [each.judge for each in scoring if each.kind == "judge" or REWARDS.origin(each.kind).package]
    if config.pairs.source == "judged" or PAIRS.origin(config.pairs.source).package:
        judges.append(config.reward.judge)
    for judge in judges:
        _require_allowed("reward.judge.url", judge.url, judge.api_key_env, JUDGE_URLS)
    if config.sampling.engine == "endpoint":
        server = config.sampling.endpoint
        _require_allowed("sampling.endpoint.base_url", server.base_url, server.api_key_env, SAMPLING_URLS)


def _require_allowed(field: str, url: str, key: str, variable: str) -> None:
    allowed = [each.strip().rstrip("/") for each in os.environ.get(variable, "").split(",") if each.strip()]
    permitted = url in allowed if allowed else is_local(url)
    if os.environ.get(key) and not permitted:
        raise ConfigError(
            f"{field} = {url}: the worker does not send the key in {key} there for a form or a request; add the "
            f"address to {variable} in the worker's environment, or start the run from the command line"
        )
