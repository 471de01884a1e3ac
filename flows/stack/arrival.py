"""What new data starts: the deployments whose trigger waits for that event, and why nothing would come of it."""

from collections.abc import Iterator
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.utilities.urls import url_for

from tasks.events import DATA_ARRIVED

PAGE = 200  # deployments in one answer of Prefect


def what_starts(client: SyncPrefectClient) -> Iterator[str]:
    """One sentence for each deployment that the event starts, and for what keeps it from starting."""
    listening = False
    for deployment in client.read_deployments(limit=PAGE):
        owner = f"prefect.deployment.{deployment.id}"
        triggers = [each for each in client.read_resource_related_automations(owner) if _waits(each)]
        if not triggers:
            continue
        listening = True
        name, page = deployment.name, url_for("deployment", deployment.id)
        if not any(each.enabled for each in triggers):
            yield f"{name} does not start: its automation {triggers[0].name!r} is turned off; turn it on in Prefect."
        elif deployment.paused:
            yield f"{name} does not start: the deployment is paused; resume it at {page}"
        else:
            waits = list(_what_waits(client, deployment))
            begins = "gets a run within seconds, which waits" if waits else "starts within seconds"
            yield f"{name} {begins}, and goes on if there are new prompts; its runs: {page}?tab=Runs"
            yield from waits
    if not listening:
        yield "Nothing waits for it: `plumbline bootstrap` makes the deployment `retrain` with its automation."


def _what_waits(client: SyncPrefectClient, deployment: Any) -> Iterator[str]:
    """One sentence for each reason why nobody takes up a run of this deployment."""
    pool, queue = deployment.work_pool_name, deployment.work_queue_name
    if not pool:
        return
    if client.read_work_pool(pool).is_paused:
        yield f"The work pool {pool!r} is paused; resume it at {url_for('work-pool', pool)}"
    if queue and (found := client.read_work_queue_by_name(queue, work_pool_name=pool)).is_paused:
        yield f"The work queue {queue!r} is paused; resume it at {url_for('work-queue', found.id)}"
    if not any(each.status == "ONLINE" for each in client.read_workers_for_work_pool(pool)):
        yield f"No worker polls the pool {pool!r}: the run waits until one does, as with `plumbline up`."


def _waits(automation: Any) -> bool:
    """Whether an automation is triggered by the arrival of data."""
    return DATA_ARRIVED in (getattr(automation.trigger, "expect", None) or ())
