"""GPU slots: asked for again while they are taken, with the holder named, and given up by a run that is to stop."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx import HTTPStatusError, Request, Response
from prefect.client.schemas.objects import FlowRun, GlobalConcurrencyLimit, State, TaskRun
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.runtime import flow_run
from prefect.states import Running

from alignment.errors import Interrupted
from alignment.transient import is_transient
from tasks import slots
from tasks.slots import gpu_slot
from tasks.stopping import stopping_as_one


class Client:
    """Prefect's, where it knows one limit or none."""

    def __init__(self, limit: Any) -> None:
        self.limit = limit

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_global_concurrency_limit_by_name(self, name: str) -> Any:
        assert name == "gpu"
        if isinstance(self.limit, Exception):
            raise self.limit
        return self.limit

    def read_task_runs(self, **_: Any) -> list[TaskRun]:
        return []


def test_a_slot_is_taken_where_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.exceptions import ObjectNotFound

    taken: list[tuple[str, int]] = []

    @contextmanager
    def concurrency(name: str, *, occupy: int, **_: Any) -> Iterator[None]:
        taken.append((name, occupy))
        yield

    monkeypatch.setattr(slots, "concurrency", concurrency)
    for limit in (ObjectNotFound(ValueError("404")), GlobalConcurrencyLimit(name="gpu", limit=1)):
        monkeypatch.setattr(slots, "get_client", lambda *, limit=limit, **_: Client(limit))
        with gpu_slot(2, lambda _: None):
            pass
    assert taken == [("gpu", 1)], "more than there are would never be free"


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Prefect, which refuses a slot with the statuses in here, the last first, and then grants it."""
    refusals: list[int] = []

    @contextmanager
    def concurrency(_: str, *, max_retries: int, **__: Any) -> Iterator[None]:
        assert max_retries == 0, "Prefect's client would go on asking, and keep the process until it has a slot"
        if refusals:
            request = Request("POST", "http://prefect")
            cause = HTTPStatusError("refused", request=request, response=Response(refusals.pop(), request=request))
            raise ConcurrencySlotAcquisitionError("refused") from cause
        yield

    monkeypatch.setattr(slots, "concurrency", concurrency)
    monkeypatch.setattr(slots, "get_client", lambda **_: Client(GlobalConcurrencyLimit(name="gpu", limit=1)))
    monkeypatch.setattr(slots, "ASK_EVERY", 0.01)
    return refusals


def test_a_slot_that_is_taken_is_asked_for_again_and_said_once(questions: list[int]) -> None:
    told: list[str] = []
    questions.extend([423, 423, 423])
    with gpu_slot(1, told.append, lambda: told.append("goes on")):
        assert questions == []
        assert told == ["", "goes on"]
    assert told == ["", "goes on"]


def test_who_waits_is_told_when_another_run_comes_to_hold_the_slot(
    questions: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["one", "one", "two", "two"]
    monkeypatch.setattr(slots, "holders", lambda: names.pop(0))
    waited: list[str] = []
    questions.extend([423] * 4)
    with gpu_slot(1, waited.append):
        pass
    assert waited == ["one", "two"]


def test_a_run_whose_wait_an_error_ended_is_running_again_once_it_has_a_slot(
    questions: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is tried again where Prefect was away for a moment, and may find the slot free."""
    states: list[State[Any]] = [Running()]

    class AtWork(Client):
        def read_flow_run(self, _: UUID) -> FlowRun:
            now = states[-1]
            return FlowRun(flow_id=uuid4(), state=now, state_type=now.type, state_name=now.name)

        def set_flow_run_state(self, _: UUID, state: State[Any]) -> None:
            states.append(state)

    def names() -> list[str | None]:
        return [state.name for state in states]

    limit = GlobalConcurrencyLimit(name="gpu", limit=1)
    monkeypatch.setattr(slots, "get_client", lambda **_: AtWork(limit))
    monkeypatch.setattr(flow_run, "id", str(uuid4()), raising=False)
    with gpu_slot(1, lambda _: None):
        assert names() == ["Running"]
    questions.extend([500, 423])
    with pytest.raises(ConcurrencySlotAcquisitionError), gpu_slot(1, lambda _: None):
        pass
    with gpu_slot(1, lambda _: None):
        assert names() == ["Running", slots.WAITS, "Running"]


def test_another_refusal_of_a_slot_is_an_error(questions: list[int]) -> None:
    questions.append(500)
    with pytest.raises(ConcurrencySlotAcquisitionError), gpu_slot(1, lambda _: None):
        pass


def test_a_run_that_is_asked_to_stop_waits_for_no_slot_and_is_not_tried_again(questions: list[int]) -> None:
    """In a thread of it as well, which no signal reaches: there the context says so."""

    def take() -> None:
        with gpu_slot(1, lambda _: None):
            pass

    with suppress(KeyboardInterrupt), stopping_as_one():
        of_the_run = copy_context()
        raise KeyboardInterrupt
    questions.extend([423, 423])
    with pytest.raises(Interrupted) as raised:
        of_the_run.run(take)
    assert questions == [423]
    assert not is_transient(raised.value)


# Who holds it


EARLY, LATE = datetime(2026, 3, 1, 17, 5, 9, tzinfo=UTC), datetime(2026, 3, 1, 17, 6, 0, tzinfo=UTC)


class Holding:
    """Prefect, where one run computes, and another waits as we do."""

    def __init__(self) -> None:
        now: State[Any] = Running()
        at_work, waits = (state.model_copy(update={"timestamp": EARLY}) for state in (now, Running(name=slots.WAITS)))
        self.runs = [
            FlowRun(id=uuid4(), flow_id=uuid4(), name=name, state=state, state_type=state.type, state_name=state.name)
            for name, state in (("small: hinge", at_work), ("small: ipo", waits))
        ]

    def __enter__(self) -> "Holding":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_task_runs(self, **_: Any) -> list[TaskRun]:
        return [
            TaskRun(name="train policy-3fa", task_key="t", dynamic_key="0", flow_run_id=run.id, start_time=LATE)
            for run in self.runs
        ]

    def read_flow_runs(self, **_: Any) -> list[FlowRun]:
        return self.runs


def test_the_holder_is_the_run_that_computes_since_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "get_client", lambda **_: Holding())
    since = f"{LATE.astimezone():%H:%M:%S}"
    assert slots.holders() == f"'small: hinge' holds it since {since}, for 'train policy'"


def test_a_server_that_is_away_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: Any) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(slots, "get_client", away)
    assert slots.holders() == ""
