"""What a Prefect server and an MLflow need before the flows run there: made once, changed where the project changed.

What a person set in the UI since stays: each deployment's version says what was last applied from the project's files,
and only what differs from that is applied again. A schedule keeps whether it is paused even then.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyOptions, StateType
from prefect.events import Automation, AutomationCore, DeploymentTriggerTypes, EventTrigger, Posture
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import TypeAdapter

from alignment.errors import ConfigError
from alignment.stages.store import digest
from flows.stack import prefect_api
from tasks.home import SILENT_AFTER
from tasks.registry.connection import client as mlflow_client
from tasks.registry.connection import guard, place
from tasks.registry.webhook import read_secret
from tasks.running import GPU_SLOT

PoolType = Literal["process", "docker", "kubernetes"]
SILENCE = timedelta(seconds=SILENT_AFTER)
ZOMBIES = "plumbline: runs that fell silent"
TRAINING = "training"
WEBHOOK = "plumbline"
WEBHOOK_EVENTS = ["model_version_alias.created"]


@dataclass(frozen=True)
class Change:
    """One thing that the bootstrap saw to."""

    how: Literal["made", "changed", "left", "skipped"]
    what: str
    note: str = ""


@dataclass(frozen=True)
class Webhook:
    """Where MLflow tells of a moved alias, and the secret that it signs with."""

    url: str
    secret: str = field(repr=False)


def bootstrap(
    project: Path,
    *,
    pool: str = "local",
    pool_type: PoolType = "process",
    job_template: Path | None = None,
    gpu_slots: int | None = None,
    webhook: Webhook | None = None,
) -> Iterator[Change]:
    """Make what is missing, one yielded change at a time; `PREFECT_API_URL` and `MLFLOW_TRACKING_URI` say where.

    Raises ConfigError where prefect.yaml or the job template cannot be used, TrackingError where MLflow refuses.
    """
    with prefect_api.guard(), get_client(sync_client=True) as client:
        yield _work_pool(client, pool, pool_type, job_template)
        yield _queue(client, pool, (gpu_slots or max(1, gpu_count())) + 1)
        yield _gpu_limit(client, gpu_slots)
        for spec in _specs(project):
            yield _deployment(client, project, spec, pool)
        yield _automation(client, zombies())
    yield _webhook(webhook)


def configured_webhook() -> Webhook | None:
    """The receiver that the environment names, or None. Raises ConfigError where its secret is missing or weak."""
    url = os.environ.get("PLUMBLINE_WEBHOOK_URL")
    return Webhook(url, read_secret().decode()) if url else None


def zombies() -> AutomationCore:
    """The automation that ends a run whose process has not been heard of for a while.

    Only runs of these deployments are meant, by their tag: others may beat more slowly. A heartbeat arms it; the next
    one, or any change of the run's state, disarms it. So a run that is suspended or waits for a retry is left alone,
    and one that ended too, whatever its last state was called. A run that waits for a person in `pause_flow_run` has
    its process, and a heartbeat.
    """
    return AutomationCore(
        name=ZOMBIES,
        description="Ends a run as Crashed once its heartbeats stop, as they do where worker and run died together.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.id": "prefect.tag.plumbline", "prefect.resource.role": "tag"},
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"No heartbeat for {SILENCE.total_seconds():.0f} s: the process is gone.",
            )
        ],
    )


def gpu_count() -> int:
    """The CUDA devices that this machine offers, found without torch; 0 where there are none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return sum(1 for name in visible.split(",") if name.strip() not in {"", "-1"})
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
        if listed.returncode == 0:
            return sum(1 for line in listed.stdout.splitlines() if line.startswith("GPU "))
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _work_pool(client: SyncPrefectClient, name: str, kind: PoolType, template_file: Path | None) -> Change:
    what = f"work pool {name}"
    template = _template(kind, template_file)
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        if template is None:
            raise ConfigError(
                f"--pool-type {kind}: a pool of this type is made from a job template; give one with --job-template"
            ) from None
        client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))
        return Change("made", what, kind)
    if found.type != kind:
        raise ConfigError(f"--pool {name}: is of type {found.type}, not {kind}; name another pool, or delete this one")
    if template_file is not None and template is not None and found.base_job_template != template:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
        return Change("changed", what, f"template of {template_file.name}")
    return Change("left", what)


def _template(kind: PoolType, file: Path | None) -> dict[str, Any] | None:
    if file is None:
        if kind != "process":
            return None
        from prefect.workers.process import ProcessWorker

        return dict(ProcessWorker.get_default_base_job_template())
    try:
        template: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--job-template {file}: not readable as JSON ({' '.join(str(error).split())})") from error
    return template


def _queue(client: SyncPrefectClient, pool: str, at_once: int) -> Change:
    """The queue of the long runs: one works beside those that hold a GPU slot, and the rest waits, at no cost."""
    what = f"work queue {TRAINING}"
    try:
        found = client.read_work_queue_by_name(TRAINING, work_pool_name=pool)
    except ObjectNotFound:
        client.create_work_queue(TRAINING, concurrency_limit=at_once, work_pool_name=pool)
        return Change("made", what, f"runs at once: {at_once}")
    return Change("left", what, f"runs at once: {found.concurrency_limit or 'any number'}")


def _gpu_limit(client: SyncPrefectClient, slots: int | None) -> Change:
    what = f"concurrency limit {GPU_SLOT}"
    try:
        found = client.read_global_concurrency_limit_by_name(GPU_SLOT)
    except ObjectNotFound:
        wanted = slots or max(1, gpu_count())
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_SLOT, limit=wanted, active=True))
        return Change("made", what, f"slots: {wanted}")
    if slots is not None and found.limit != slots:
        client.update_global_concurrency_limit(GPU_SLOT, GlobalConcurrencyLimitUpdate(limit=slots))
        return Change("changed", what, f"slots: {found.limit} → {slots}")
    return Change("left", what, f"slots: {found.limit}")


def _specs(project: Path) -> list[dict[str, Any]]:
    """The deployments of prefect.yaml, each with the pull steps that are common to all."""
    file = project / "prefect.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return [{"pull": content.get("pull"), **spec} for spec in content["deployments"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: not readable as deployments ({' '.join(str(error).split())})") from error


def _deployment(client: SyncPrefectClient, project: Path, spec: Mapping[str, Any], pool: str) -> Change:
    """Create the deployment, or bring it up to date where the project's files changed since the last time."""
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
        _triggers(client, made, spec["name"], triggers)
        client.update_deployment(made, DeploymentUpdate(version=version))  # last: what was cut off is made again
        return Change("made", what, _cron(spec))
    if found.version == version:
        paused = [f"schedule {item.slug} is paused" for item in found.schedules if not item.active]
        return Change("left", what, "; ".join(paused))
    before = (found.version or "").split(".")
    client.update_deployment(found.id, DeploymentUpdate(**fields))
    if before[0] != version.split(".")[0]:
        _triggers(client, found.id, spec["name"], triggers)
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


def _triggers(client: SyncPrefectClient, deployment: Any, name: str, specs: list[dict[str, Any]]) -> None:
    """Replace the automations that start the deployment; one that a person disabled stays so."""
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


def _automation(client: SyncPrefectClient, wanted: AutomationCore) -> Change:
    what = f"automation {wanted.name!r}"
    found = client.read_automations_by_name(wanted.name)
    for double in found[1:]:
        client.delete_automation(double.id)
    if not found:
        client.create_automation(wanted)
        return Change("made", what)
    if _content(found[0]) == _content(wanted):
        return Change("left", what, "" if found[0].enabled else "disabled")
    client.update_automation(found[0].id, wanted.model_copy(update={"enabled": found[0].enabled}))
    return Change("changed", what)


def _content(automation: AutomationCore | Automation) -> dict[str, Any]:
    dumped: dict[str, Any] = automation.model_dump(mode="json", include={"name", "description", "trigger", "actions"})
    trigger = dumped["trigger"]
    trigger.pop("id", None)
    for name in ("after", "expect", "for_each"):
        trigger[name] = sorted(trigger[name])
    return dumped


def _webhook(wanted: Webhook | None) -> Change:
    """MLflow's call to the receiver. The secret is sent each time: MLflow does not tell which one it has."""
    what = "webhook of MLflow's registry"
    if wanted is None:
        return Change("skipped", what, "PLUMBLINE_WEBHOOK_URL is not set")
    if not place().remote:  # a database would keep the secret under a key that no server knows
        return Change("skipped", what, "MLFLOW_TRACKING_URI names no server")
    fields = {"url": wanted.url, "events": WEBHOOK_EVENTS, "secret": wanted.secret}
    with guard():
        client = mlflow_client()
        found = [hook for hook in client.list_webhooks() if hook.name == WEBHOOK]
        if not found:
            client.create_webhook(name=WEBHOOK, description="Tells Plumbline's receiver of a moved alias.", **fields)
            return Change("made", what, wanted.url)
        client.update_webhook(found[0].webhook_id, **fields)
    moved = found[0].url != wanted.url
    return Change("changed" if moved else "left", what, wanted.url)
