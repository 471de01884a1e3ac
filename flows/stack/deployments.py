"""Reads the deployments of prefect.yaml, and applies them to a Prefect server without undoing what people set there.

A deployment's version holds a hash of what was last applied from the project's files. Only what differs from that is
applied again; a schedule that a person paused stays paused even then.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions
from prefect.events import DeploymentTriggerTypes
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import TypeAdapter

from alignment.config import AlignConfig, load_config
from alignment.errors import ConfigError
from alignment.stages.store import digest
from flows.stack.changes import Change


def read_deployments(project: Path) -> list[dict[str, Any]]:
    """The deployments of the project's prefect.yaml, each with all its parameters and the common pull steps.

    A deployment may name a configuration file, `config`, relative to the project; its `parameters` are laid over that
    file's values. Raises ConfigError if a file cannot be read, or a value in it is not valid.
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
        "parameter_openapi_schema": parameter_schema(flow).model_dump(exclude_unset=True),
        "enforce_parameter_schema": True,
    }
    schedules = [_schedule(item) for item in spec.get("schedules", [])]
    triggers = spec.get("triggers", [])
    version = f"{digest([fields, triggers])[:8]}.{digest(spec.get('schedules', []))[:8]}"
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
        return Change("made", what, _cron(spec))
    if found.version == version:
        paused = [f"schedule {item.slug} is paused" for item in found.schedules if not item.active]
        return Change("left", what, "; ".join(paused))
    before = (found.version or "").split(".")
    client.update_deployment(found.id, DeploymentUpdate(**fields))
    if before[0] != version.split(".")[0]:
        _replace_triggers(client, found.id, spec["name"], triggers)
    if before[-1] != version.split(".")[-1]:
        known = {item.slug: item.id for item in found.schedules}
        for item in schedules:
            if item.slug in known:  # without `active`: paused stays paused
                client.update_deployment_schedule(
                    found.id, known[item.slug], schedule=item.schedule, parameters=item.parameters
                )
            else:
                client.create_deployment_schedules(found.id, [item])
    client.update_deployment(found.id, DeploymentUpdate(version=version))
    return Change("changed", what, _cron(spec))


def _schedule(spec: Mapping[str, Any]) -> DeploymentScheduleCreate:
    own = {"active", "parameters", "slug"}
    return DeploymentScheduleCreate.model_validate(
        {
            **{name: value for name, value in spec.items() if name in own},
            "schedule": {name: value for name, value in spec.items() if name not in own},
        }
    )


def _cron(spec: Mapping[str, Any]) -> str:
    return ", ".join(f"schedule {item.get('slug')}: {item.get('cron', '')}" for item in spec.get("schedules", []))


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
