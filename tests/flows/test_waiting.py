"""A run that waits for a GPU slot: its state says so, and for whom, until it has the slot."""

import threading
import time
from collections.abc import Iterator
from contextvars import copy_context

import pytest
from prefect import flow, tags, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.runtime import flow_run

from tasks import slots
from tasks.slots import GPU_SLOT, gpu_slot

pytestmark = pytest.mark.usefixtures("at_home")


@pytest.fixture
def one_slot(at_home: object) -> Iterator[None]:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_SLOT, limit=1, active=True))
        yield
        client.delete_global_concurrency_limit_by_name(GPU_SLOT)


HELD, FREE = threading.Event(), threading.Event()
TOLD: list[str] = []


@task(name="train policy", tags=[GPU_SLOT])
def hold() -> None:
    with gpu_slot(1, lambda _: None):
        HELD.set()
        assert FREE.wait(60)


@flow(name="holds", flow_run_name="the first")
def holds() -> None:
    hold()


@flow(name="waits")
def waits() -> str:
    def on_wait(who: str) -> None:
        TOLD.append(who)
        FREE.set()

    with gpu_slot(1, on_wait):
        pass
    return str(flow_run.id)


@pytest.mark.usefixtures("one_slot")
def test_a_run_is_waiting_for_a_slot_until_the_other_one_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "ASK_EVERY", 0.5)
    first = threading.Thread(target=copy_context().run, args=(holds,))
    first.start()
    assert HELD.wait(60)
    time.sleep(1)  # the task's state reaches the server by an event
    with tags("plumbline"):
        run = waits()
    first.join(60)
    with get_client(sync_client=True) as client:
        states = sorted(client.read_flow_run_states(run), key=lambda state: state.timestamp)  # type: ignore[arg-type]
    assert [state.name for state in states] == ["Pending", "Running", "WaitingForSlot", "Running", "Completed"]
    assert TOLD[0].startswith("'the first' holds it since ")
    assert TOLD[0].endswith(", for 'train policy'")
    assert states[2].message == f"Waits for a GPU slot: {TOLD[0]}."
