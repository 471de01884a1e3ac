"""What `plumbline data-arrived` says: which deployment starts and where its runs are, or why nothing would start."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from flows.stack.arrival import what_starts
from flows.stack.deployments import _replace_triggers
from tasks.events import DATA_ARRIVED

POOL = "listening"


@pytest.fixture
def client(prefect_server: None) -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client
        for deployment in client.read_deployments():
            client.delete_resource_owned_automations(f"prefect.deployment.{deployment.id}")
            client.delete_deployment(deployment.id)


def deployment(client: Any, event: str = DATA_ARRIVED, **fields: Any) -> UUID:
    """One that an event starts."""
    made: UUID = client.create_deployment(client.create_flow_from_name("listen"), "retrain", **fields)
    trigger = {"type": "event", "name": "test: data", "expect": [event], "threshold": 1, "within": 0}
    _replace_triggers(client, made, "retrain", [trigger])
    return made


def test_a_deployment_that_waits_for_the_event_starts_and_its_runs_are_linked(client: Any) -> None:
    made = deployment(client)
    (told,) = what_starts(client)
    assert told.startswith("retrain starts within seconds")
    assert told.endswith(f"/deployments/deployment/{made}?tab=Runs")


@pytest.mark.parametrize("event", [None, "plumbline.champion.changed"])
def test_without_one_nothing_waits_for_it(event: str | None, client: Any) -> None:
    if event:
        deployment(client, event)
    (told,) = what_starts(client)
    assert "Nothing waits for it: `plumbline bootstrap`" in told


def test_an_automation_that_is_turned_off_is_named(client: Any) -> None:
    made = deployment(client)
    (automation,) = client.read_resource_related_automations(f"prefect.deployment.{made}")
    client.pause_automation(automation.id)
    assert list(what_starts(client)) == [
        "retrain does not start: its automation 'test: data' is turned off; turn it on in Prefect."
    ]


def test_a_paused_deployment_is_told(client: Any) -> None:
    made = deployment(client, paused=True)
    (told,) = what_starts(client)
    assert told.startswith("retrain does not start: the deployment is paused")
    assert str(made) in told


@pytest.fixture
def pool(client: Any) -> Iterator[str]:
    from prefect.client.schemas.actions import WorkPoolCreate

    client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    yield POOL
    client.delete_work_pool(POOL)


def poll(client: Any, pool: str) -> None:
    client.send_worker_heartbeat(work_pool_name=pool, worker_name="one")


def test_a_pool_without_a_worker_is_told(client: Any, pool: str) -> None:
    deployment(client, work_pool_name=pool)
    starts, waits = what_starts(client)
    assert starts.startswith("retrain gets a run within seconds, which waits")
    assert waits.startswith("No worker polls the pool 'listening': the run waits until one does")


def test_with_a_worker_it_starts(client: Any, pool: str) -> None:
    deployment(client, work_pool_name=pool)
    poll(client, pool)
    (told,) = what_starts(client)
    assert told.startswith("retrain starts within seconds")


def test_a_paused_pool_and_a_paused_queue_are_told_with_their_pages(client: Any, pool: str) -> None:
    from prefect.client.schemas.actions import WorkPoolUpdate

    poll(client, pool)
    queue = client.create_work_queue("training", work_pool_name=pool)
    deployment(client, work_pool_name=pool, work_queue_name="training")
    client.update_work_queue(queue.id, is_paused=True)
    client.update_work_pool(pool, WorkPoolUpdate(is_paused=True))
    starts, of_pool, of_queue = what_starts(client)
    assert starts.startswith("retrain gets a run within seconds, which waits")
    assert of_pool.startswith("The work pool 'listening' is paused; resume it at http")
    assert of_pool.endswith("/work-pools/work-pool/listening")
    assert of_queue.startswith("The work queue 'training' is paused; resume it at http")
    assert of_queue.endswith(f"/work-queues/work-queue/{queue.id}")
