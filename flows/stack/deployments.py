"""Reads the deployments of prefect.yaml, and applies them to a Prefect server without undoing what people set there.

A deployment's version holds what was last applied from the project's files: a hash of its fields and triggers, one of
its schedules' times, which schedules were on, and a hash of its parameters. Only the part that differs is applied
again: a schedule that a person paused, or turned on, stays so until the file's own `active` changes, and parameters
that a person changed stay.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions
from prefect.events import DeploymentTriggerTypes
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.flows import load_flow_from_entrypoint
from pydantic import TypeAdapter

from alignment.config import AlignConfig, load_config
from alignment.errors import ConfigError
from alignment.stages.store import digest
from flows.settings import CONFIGS
from flows.stack.changes import Change
from flows.start_from import FIELD, presets

EDITED = "its parameters were changed in Prefect and stay"
CONFLICT = 409  # Prefect's answer to parameters that its form does not have


def read_deployments(project: Path) -> list[dict[str, Any]]:
    """The deployments of the project's prefect.yaml, each with all its parameters and the common pull steps.

    A deployment may name a configuration file, `config`, relative to the project, over which its `parameters` are laid:
    a shipped file becomes `start_from`, the values of any other are parameters themselves. Raises ConfigError if a file
    cannot be read, or a value in it is not valid.
    """
    file = project / "prefect.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        specs = [{"pull": content.get("pull"), **spec} for spec in content["deployments"]]
        return [spec | {"parameters": _parameters(project, spec)} for spec in specs]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: not readable as deployments ({' '.join(str(error).split())})") from error


def _parameters(project: Path, spec: Mapping[str, Any]) -> dict[str, Any]:
    given = spec.get("parameters") or {}
    if "config" not in spec:
        return dict(given)
    try:
        whole = _in_full(project / spec["config"], given)
    except ConfigError as error:
        raise ConfigError(f"prefect.yaml, deployment {spec.get('name')}: {error}") from error
    if (file := (project / spec["config"]).resolve()).stem in presets() and file.parent == CONFIGS.resolve():
        return {FIELD: file.stem} | given
    return whole


def _in_full(file: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration file with those of `given` laid over them, as parameters."""
    groups = {name: value for name, value in given.items() if name in AlignConfig.model_fields}
    others = {name: value for name, value in given.items() if name not in groups}
    return load_config(file, groups).model_dump(mode="json", exclude_unset=True) | others


def _of_older_releases(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the releases applied that kept no hash of the parameters: these, or a shipped file by all its values."""
    yield dict(parameters)
    for name in presets():
        beside = parameters if name == parameters.get(FIELD) else {}
        yield _in_full(CONFIGS / f"{name}.yaml", {key: value for key, value in beside.items() if key != FIELD})


def apply_deployment(client: SyncPrefectClient, project: Path, spec: Mapping[str, Any], pool: str) -> Change:
    """Create a deployment that `read_deployments` returned, or update it where the project's files changed.

    Parameters that a person changed in Prefect stay, and the change's note says so.
    """
    flow: Any = load_flow_from_entrypoint(f"{project}/{spec['entrypoint']}")
    what = f"deployment {flow.name}/{spec['name']}"
    limit = ConcurrencyLimitConfig.model_validate(spec["concurrency_limit"]) if "concurrency_limit" in spec else None
    fields: dict[str, Any] = {
        "description": spec.get("description"),
        "tags": spec.get("tags", []),
        "entrypoint": spec["entrypoint"],
        "work_pool_name": pool,
        "work_queue_name": spec["work_pool"].get("work_queue_name", "default"),
        "job_variables": spec["work_pool"].get("job_variables", {}),
        "pull_steps": spec["pull"],
        "concurrency_limit": limit.limit if limit else None,
        "concurrency_options": {"collision_strategy": limit.collision_strategy.value} if limit else None,
        "parameter_openapi_schema": flow.parameters.model_dump(exclude_unset=True),
        "enforce_parameter_schema": True,
    }
    triggers, given = spec.get("triggers", []), spec.get("schedules", [])
    schedules = [_schedule(item) for item in given]
    times = [item | {"active": True} for item in given]  # as they were digested when `active` had no part of its own
    switched = ",".join(f"{item.slug}:{'on' if item.active else 'off'}" for item in schedules)
    parameters = spec.get("parameters", {})
    now = (_mark([fields, triggers]), _mark(times), switched, _mark(parameters))
    version = ".".join(now)
    try:
        found = client.read_deployment_by_name(f"{flow.name}/{spec['name']}")
    except ObjectNotFound:
        options = {"concurrency_options": ConcurrencyOptions(**fields["concurrency_options"])} if limit else {}
        made = client.create_deployment(
            flow_id=client.create_flow_from_name(flow.name),
            name=spec["name"],
            schedules=schedules,
            parameters=parameters,
            version=f"...{now[3]}",  # nothing else is sure to be there
            **(fields | options),
        )
        _replace_triggers(client, made, spec["name"], triggers)
        client.update_deployment(made, DeploymentUpdate(version=version))  # last: a bootstrap cut off before is redone
        return Change("made", what, "; ".join(_switched(schedules)))
    before = [*(found.version or "").split("."), "", "", ""]
    applied = {now[3], before[3]} if before[3] else {_mark(each) for each in _of_older_releases(parameters)}
    told = [] if _mark(found.parameters) in applied else [EDITED]
    if found.version == version:
        return Change("left", what, "; ".join((*told, *_switched(found.schedules))))
    changed = fields if before[0] != now[0] else {}
    if not told and _mark(found.parameters) != now[3]:
        changed = changed | {"parameters": parameters}
    if changed:
        told += _update(client, found.id, changed)
    if before[0] != now[0]:
        _replace_triggers(client, found.id, spec["name"], triggers)
    _update_schedules(client, found, schedules, before[2], retimed=before[1] != now[1])
    client.update_deployment(found.id, DeploymentUpdate(version=version))
    return Change("changed", what, "; ".join((*told, *_switched(client.read_deployment(found.id).schedules))))


def _mark(value: Any) -> str:
    return digest(value)[:8]


def _update(client: SyncPrefectClient, deployment: UUID, fields: Mapping[str, Any]) -> list[str]:
    """Change these fields of a deployment; parameters of a person's that Prefect no longer takes are told, and stay."""
    try:
        client.update_deployment(deployment, DeploymentUpdate(**fields))
    except PrefectHTTPStatusError as error:
        if error.response.status_code != CONFLICT or "parameters" in fields:
            raise
        client.update_deployment(deployment, DeploymentUpdate(**{**fields, "enforce_parameter_schema": False}))
        return ["they do not fit this release, so that its runs fail until they are changed there"]
    return []


def _schedule(spec: Mapping[str, Any]) -> DeploymentScheduleCreate:
    own = {"active", "parameters", "slug"}
    return DeploymentScheduleCreate.model_validate(
        {
            **{name: value for name, value in spec.items() if name in own},
            "schedule": {name: value for name, value in spec.items() if name not in own},
        }
    )


def _update_schedules(
    client: SyncPrefectClient, found: Any, wanted: list[DeploymentScheduleCreate], before: str, *, retimed: bool
) -> None:
    """Apply the times where they are new in the files, and `active` where it is not what the files said before."""
    known = {item.slug: item.id for item in found.schedules}
    for item in wanted:
        changed: dict[str, Any] = {"schedule": item.schedule, "parameters": item.parameters} if retimed else {}
        if f"{item.slug}:{'off' if item.active else 'on'}" in before.split(","):
            changed["active"] = item.active
        if item.slug in known and changed:
            client.update_deployment_schedule(found.id, known[item.slug], **changed)
        elif retimed and item.slug not in known:
            client.create_deployment_schedules(found.id, [item])


def _switched(schedules: Iterable[Any]) -> list[str]:
    return [f"schedule {item.slug} is {'active' if item.active else 'paused'}" for item in schedules]


def _replace_triggers(client: SyncPrefectClient, deployment: Any, name: str, specs: list[dict[str, Any]]) -> None:
    """Replace the automations that start the deployment; one that a person disabled stays disabled."""
    owner = f"prefect.deployment.{deployment}"
    enabled = {item.name: item.enabled for item in client.read_resource_related_automations(owner)}
    client.delete_resource_owned_automations(owner)
    adapter: TypeAdapter[Any] = TypeAdapter(DeploymentTriggerTypes)
    for number, spec in enumerate(specs, start=1):
        trigger = adapter.validate_python({"name": f"{name}: trigger {number}", **spec})
        trigger.set_deployment_id(deployment)
        automation = trigger.as_automation()
        client.create_automation(
            automation.model_copy(update={"enabled": enabled.get(automation.name, automation.enabled)})
        )
