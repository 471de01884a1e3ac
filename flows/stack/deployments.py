"""Reads the deployments of prefect.yaml, and applies them to a Prefect server without undoing what people set there.

A deployment's version holds what was last applied from the project's files: a hash of its fields and triggers, one of
its schedules' times, and which schedules were on. Only the part that differs is applied again: a schedule that a person
paused, or turned on, stays so until the file's own `active` changes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions
from prefect.events import DeploymentTriggerTypes
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from pydantic import TypeAdapter

from alignment.config import AlignConfig, load_config
from alignment.errors import ConfigError
from alignment.stages.store import digest
from flows.settings import CONFIGS
from flows.stack.changes import Change
from flows.start_from import FIELD, presets


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
    groups = {name: value for name, value in given.items() if name in AlignConfig.model_fields}
    others = {name: value for name, value in given.items() if name not in groups}
    try:
        config = load_config(project / spec["config"], groups)
    except ConfigError as error:
        raise ConfigError(f"prefect.yaml, deployment {spec.get('name')}: {error}") from error
    if (file := (project / spec["config"]).resolve()).stem in presets() and file.parent == CONFIGS.resolve():
        return {FIELD: file.stem} | given
    return config.model_dump(mode="json", exclude_unset=True) | others


def apply_deployment(client: SyncPrefectClient, project: Path, spec: Mapping[str, Any], pool: str) -> Change:
    """Create a deployment that `read_deployments` returned, or update it where the project's files changed."""
    flow: Any = load_flow_from_entrypoint(f"{project}/{spec['entrypoint']}")
    what = f"deployment {flow.name}/{spec['name']}"
    limit = ConcurrencyLimitConfig.model_validate(spec["concurrency_limit"]) if "concurrency_limit" in spec else None
    fields: dict[str, Any] = {
        "description": spec.get("description"),
        "tags": spec.get("tags", []),
        "parameters": spec.get("parameters", {}),
        "entrypoint": spec["entrypoint"],
        "work_pool_name": pool,
        "work_queue_name": spec["work_pool"].get("work_queue_name", "default"),
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
    version = ".".join((digest([fields, triggers])[:8], digest(times)[:8], switched))
    try:
        found = client.read_deployment_by_name(f"{flow.name}/{spec['name']}")
    except ObjectNotFound:
        options = {"concurrency_options": ConcurrencyOptions(**fields["concurrency_options"])} if limit else {}
        made = client.create_deployment(
            flow_id=client.create_flow_from_name(flow.name),
            name=spec["name"],
            schedules=schedules,
            **(fields | options),
        )
        _replace_triggers(client, made, spec["name"], triggers)
        client.update_deployment(made, DeploymentUpdate(version=version))  # last: a bootstrap cut off before is redone
        return Change("made", what, _switched(schedules))
    if found.version == version:
        return Change("left", what, _switched(found.schedules))
    before = [*(found.version or "").split("."), "", ""]
    client.update_deployment(found.id, DeploymentUpdate(**fields))
    if before[0] != version.split(".")[0]:
        _replace_triggers(client, found.id, spec["name"], triggers)
    _update_schedules(client, found, schedules, before[2], retimed=before[1] != version.split(".")[1])
    client.update_deployment(found.id, DeploymentUpdate(version=version))
    return Change("changed", what, _switched(client.read_deployment(found.id).schedules))


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


def _switched(schedules: Iterable[Any]) -> str:
    return "; ".join(f"schedule {item.slug} is {'active' if item.active else 'paused'}" for item in schedules)


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
