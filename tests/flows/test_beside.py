"""Beside a flow that waits: another thread has a client of its own, goes on after an error, and ends with the wait."""

import time
from threading import Event
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from flows.beside import beside

pytestmark = pytest.mark.usefixtures("at_home")


def test_a_thread_beside_a_flow_has_its_run_and_a_client_of_its_own() -> None:
    found: list[Any] = []
    there = Event()

    def act() -> None:
        with get_client(sync_client=True) as client:
            found.extend([flow_run.id, client, client.read_flow_run(flow_run.id)])
        there.set()

    @flow(name="waits")
    def waits() -> tuple[Any, Any]:
        with beside(act, [0.01], "looking"):
            assert there.wait(30)
        return flow_run.id, get_client(sync_client=True)

    run, client = waits()
    assert found[0] == run == str(found[2].id)
    assert found[1] is not client


def test_an_error_is_logged_and_the_next_call_comes(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    third = Event()

    def act() -> None:
        calls.append(len(calls))
        if len(calls) == 3:
            third.set()
        if len(calls) < 3:
            raise RuntimeError("Prefect is busy")

    with beside(act, [0.01] * 3, "a reminder"):
        assert third.wait(30)
    assert calls == [0, 1, 2]
    assert caplog.messages.count("a reminder failed: Prefect is busy") == 2


def test_at_the_end_a_call_that_has_begun_is_waited_for_and_no_other_begins() -> None:
    began, calls = Event(), []

    def act() -> None:
        began.set()
        time.sleep(0.2)
        calls.append(1)

    with beside(act, [0.01, 0.01], "slow"):
        assert began.wait(30)
    assert calls == [1]
    time.sleep(0.3)
    assert calls == [1]
