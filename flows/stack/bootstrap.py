"""`plumbline bootstrap`: makes the work pool, GPU slots, deployments, automations and webhook that the flows need.

It can be run again at any time: what is there already stays, with what people changed in the UI.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import jsonschema
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore, EventTrigger, Posture
from prefect.events.actions import ChangeFlowRunState
from prefect.exceptions import ObjectNotFound

from alignment.errors import ConfigError
from flows.stack import prefect_api
from flows.stack.automations import apply_automation
from flows.stack.changes import Change
from flows.stack.deployments import apply_deployment, read_deployments
from flows.stack.first_steps import write_first_steps
from flows.stack.notifications import apply_notifications
from tasks.devices import devices
from tasks.home import SILENT_AFTER
from tasks.registry.accounts import USER, Account, apply_account
from tasks.registry.connection import client as mlflow_client
from tasks.registry.connection import guard, place
from tasks.registry.webhook import read_secret
from tasks.runners import TAG
from tasks.slots import GPU_SLOT

PoolType = Literal["process", "docker", "kubernetes"]
ZOMBIES = "plumbline: runs that fell silent"
TRAINING, SHARDS = "training", "shards"
WEBHOOK = "plumbline"
WEBHOOK_EVENTS = ["model_version_alias.created"]


@dataclass(frozen=True)
class Webhook:
    """The address that MLflow calls when an alias is set, and the secret that it signs with."""

    url: str
    secret: str = field(repr=False)


def bootstrap(
    project: Path,
    *,
    pool: str = "local",
    pool_type: PoolType = "process",
    job_template: Path | None = None,
    job_defaults: Path | None = None,
    gpu_slots: int | None = None,
    account: Account | None = None,
    webhook: Webhook | None = None,
    notify: str | None = None,
) -> Iterator[Change]:
    """Make what is missing on the servers of `PREFECT_API_URL` and `MLFLOW_TRACKING_URI`; yields each change.

    `job_defaults` is a file with values of the job template's variables, in place of the template's own. `notify` is
    the address that notifications go to from now on, see `apply_notifications`. Raises ConfigError if it,
    prefect.yaml, the job template or its defaults cannot be used, TrackingError if MLflow refuses.
    """
    with prefect_api.guard(), get_client(sync_client=True) as client:
        yield _work_pool(client, pool, pool_type, _template(job_template, job_defaults))
        slots = gpu_slots or max(1, len(devices()))
        yield _queue(client, pool, TRAINING, slots + 1)
        yield _queue(client, pool, SHARDS, max(1, slots - 1) if pool_type == "kubernetes" else slots)
        yield _gpu_limit(client, gpu_slots)
        for spec in read_deployments(project):
            yield apply_deployment(client, project, spec, pool)
        yield apply_automation(client, zombies())
        yield from apply_notifications(client, notify)
        yield write_first_steps(client)
    yield _account(account)
    yield _webhook(webhook)


def configured_webhook() -> Webhook | None:
    """The receiver that the environment names, or None. Raises ConfigError if its secret is missing or weak."""
    url = os.environ.get("PLUMBLINE_WEBHOOK_URL")
    return Webhook(url, read_secret().decode()) if url else None


def zombies() -> AutomationCore:
    """The automation that ends a run whose heartbeats have stopped.

    It applies to the runs of these deployments, by their tag: those of others may send heartbeats more slowly. A
    heartbeat arms it; the next one, or any change of the run's state, disarms it. So it leaves alone a run that is
    suspended or waits for a retry, and one that has ended, whatever its last state was called. A run that waits for a
    person in `pause_flow_run` still has its process, which sends heartbeats.
    """
    return AutomationCore(
        name=ZOMBIES,
        description="Ends a run as Crashed once its heartbeats stop, as when the worker and the run died together.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={
                "prefect.resource.id": ["prefect.tag.plumbline", f"prefect.tag.{TAG}"],
                "prefect.resource.role": "tag",
            },
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_AFTER),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"No heartbeat for {SILENT_AFTER} s: the process is gone. Press Retry, or start it again; "
                "what is finished is kept.",
            )
        ],
    )


def _work_pool(client: SyncPrefectClient, name: str, kind: PoolType, template: dict[str, Any] | None) -> Change:
    """The pool; its template stays where none is given."""
    what = f"work pool {name}"
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        if template is None and kind != "process":
            raise ConfigError(
                f"--pool-type {kind}: a pool of this type is made from a job template; give one with --job-template"
            ) from None
        client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template or _of_processes()))
        return Change("made", what, kind)
    if found.type != kind:
        raise ConfigError(f"--pool {name}: is of type {found.type}, not {kind}; name another pool, or delete this one")
    if template is not None and found.base_job_template != template:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
        return Change("changed", what, "its job template")
    return Change("left", what)


def _of_processes() -> dict[str, Any]:
    from prefect.workers.process import ProcessWorker

    return dict(ProcessWorker.get_default_base_job_template())


def _template(file: Path | None, defaults: Path | None) -> dict[str, Any] | None:
    """The job template of a file with other defaults laid over its own; None where no file is given."""
    if file is None:
        if defaults is not None:
            raise ConfigError(f"--job-defaults {defaults}: are those of a job template; give it with --job-template")
        return None
    try:
        template: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--job-template {file}: not readable as JSON ({' '.join(str(error).split())})") from error
    if defaults is None:
        return template
    variables: dict[str, Any] = template["variables"]["properties"]
    given = _values(defaults)
    for name in given.keys() - variables.keys():
        raise ConfigError(f"--job-defaults {defaults}: {name} is no variable of {file.name} ({', '.join(variables)})")
    try:
        jsonschema.validate(given, template["variables"] | {"required": []})
    except jsonschema.ValidationError as error:
        place = ".".join(map(str, error.absolute_path))
        raise ConfigError(f"--job-defaults {defaults}: {place}: {error.message}") from error
    for name, value in given.items():
        variables[name]["default"] = value
    return template


def _values(file: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--job-defaults {file}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise ConfigError(f"--job-defaults {file}: give a value a variable, `name: value`")
    return found


def _queue(client: SyncPrefectClient, pool: str, name: str, at_once: int) -> Change:
    """A queue of long runs: so many run at a time, the others wait.

    Of those that train, one more than there are GPU slots. Of shards, as many as there are; on Kubernetes one less,
    since the run that waits for them keeps its own GPU.
    """
    what = f"work queue {name}"
    try:
        found = client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        client.create_work_queue(name, concurrency_limit=at_once, work_pool_name=pool)
        return Change("made", what, f"runs at once: {at_once}")
    return Change("left", what, f"runs at once: {found.concurrency_limit or 'any number'}")


def _gpu_limit(client: SyncPrefectClient, slots: int | None) -> Change:
    what = f"concurrency limit {GPU_SLOT}"
    try:
        found = client.read_global_concurrency_limit_by_name(GPU_SLOT)
    except ObjectNotFound:
        wanted = slots or max(1, len(devices()))
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_SLOT, limit=wanted, active=True))
        return Change("made", what, f"slots: {wanted}")
    if slots is not None and found.limit != slots:
        client.update_global_concurrency_limit(GPU_SLOT, GlobalConcurrencyLimitUpdate(limit=slots))
        return Change("changed", what, f"slots: {found.limit} → {slots}")
    return Change("left", what, f"slots: {found.limit}")


def _account(wanted: Account | None) -> Change:
    what = "account of MLflow"
    if wanted is None:
        return Change("skipped", what, f"{USER} is not set")
    return Change("made" if apply_account(wanted) else "left", what, wanted.user)


def _webhook(wanted: Webhook | None) -> Change:
    """MLflow's call to the receiver. The secret is sent each time, since MLflow does not show the one that it has."""
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
            client.create_webhook(
                name=WEBHOOK, description="Notifies Plumbline's receiver that an alias was set.", **fields
            )
            return Change("made", what, wanted.url)
        client.update_webhook(found[0].webhook_id, **fields)
    moved = found[0].url != wanted.url
    return Change("changed" if moved else "left", what, wanted.url)
