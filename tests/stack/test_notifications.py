"""Notifications as somebody gets them: a webhook on this machine, told of what happens on a real stack."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.events import (
    APPROVAL_WAITING,
    CHAMPION_CHANGED,
    MODEL_DRIFTED,
    NOTIFICATION_TEST,
    PROMOTION_REVERTED,
    RUN_REFUSED,
)
from tests.stack.inbox import Inbox, Message, inbox
from tests.stack.machine import Machine, wait_for
from tests.stack.processes import READY_WITHIN
from tests.stack.reviews import FINISHED_WITHIN, NAME, Reviews, events, now, settings

pytestmark = pytest.mark.stack

ARRIVED_WITHIN = 60.0  # seconds


def bootstrap(stack: Machine, *arguments: str) -> str:
    """`plumbline bootstrap` on the stack's servers, as its operator runs it; returns what it printed."""
    env = os.environ | {
        "PREFECT_API_URL": f"{stack.prefect}/api",
        "MLFLOW_TRACKING_URI": stack.mlflow,
        "PLUMBLINE_HOME": str(stack.home),
        "CUDA_VISIBLE_DEVICES": "",
    }
    if stack.passwords is not None:
        env["PREFECT_API_AUTH_STRING"] = stack.passwords.prefect
        env["MLFLOW_TRACKING_USERNAME"], env["MLFLOW_TRACKING_PASSWORD"] = stack.passwords.mlflow
    command = [sys.executable, "-c", "from flows.cli.commands import main; main()", "bootstrap", *arguments]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=READY_WITHIN)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def box(stack: Machine) -> Iterator[Inbox]:
    """Where the stack's notifications go, until these tests end."""
    with inbox() as found:
        assert found.url not in bootstrap(stack, "--notify", found.url, "--notify-test")
        found.wait("A test message from Plumbline", ARRIVED_WITHIN)
        yield found
        bootstrap(stack, "--notify", "off")


@pytest.fixture
def told(stack: Machine, box: Inbox, figures: Any) -> Callable[[str, str], Message]:
    """Wait for a message with these words in its title; its delay counts from the event of Prefect's that it tells."""
    began = now()

    def wait(event: str, title: str) -> Message:
        message = box.wait(title, ARRIVED_WITHIN, since=began)
        wait_for(lambda: bool(events(stack, event, began)), 60, f"the record of {event}")
        happened = [datetime.fromisoformat(each["occurred"]) for each in events(stack, event, began)]
        delay = min(abs((message.arrived - each).total_seconds()) for each in happened)
        figures(f"notified: {title}", delay, "from the event to the message")
        return message

    return wait


Told = Callable[[str, str], Message]


def test_an_approval_is_awaited_and_given(stack: Machine, reviews: Reviews, told: Told) -> None:
    version = reviews.other()
    run = stack.run("promote", {"model_name": NAME, "version": int(version)})
    asked = told(APPROVAL_WAITING, f"{NAME} version {version} waits for your approval")
    figures, until = asked.text.splitlines()
    assert figures.startswith("reward gain ")
    assert "Without an answer by " in until
    assert asked.link == f"{stack.prefect}/runs/flow-run/{run}"

    wait_for(lambda: stack.kind(run) == "PAUSED", 60, "the pause")
    wait_for(lambda: answer(stack, run) == "ACCEPT", 60, "the answer")
    promoted = told(CHAMPION_CHANGED, f"{NAME} version {version} was promoted")
    assert f"{NAME} version {version} is the champion" in promoted.text
    assert "approved by Ada Lovelace: reads well" in promoted.text
    assert promoted.link.startswith(f"{stack.mlflow}/#/models/{NAME}/versions/{version}")
    assert stack.end(run) == "COMPLETED"


def answer(stack: Machine, run: str) -> str:
    """Approve, as the dialog does; returns what Prefect made of it."""
    given = {"approver": "Ada Lovelace", "approve": True, "reason": "reads well"}
    return str(stack.api(f"flow_runs/{run}/resume", {"run_input": given})["status"])


def test_a_run_is_refused(stack: Machine, reviews: Reviews, told: Told) -> None:
    run = stack.run("align", settings(dpo={"beta": 0.4}, gates={"min_gain": 100}))
    message = told_at_its_end(stack, run, told, RUN_REFUSED, f"{NAME}: the new model was refused by the gates")
    assert message.text.startswith("Not registered: reward gain's lower bound ")
    assert "prompts won" in message.text.splitlines()[1]
    assert message.link == f"{stack.prefect}/runs/flow-run/{run}"


def test_a_model_has_drifted(stack: Machine, reviews: Reviews, told: Told) -> None:
    champion = {"evaluation": {"anchor": f"models:/{NAME}/{reviews.passed[0]}"}}
    run = stack.run("align", settings(dpo={"beta": 0.4}, gates={"max_anchor_kl_per_token": 1e-9}, **champion))
    title = f"{NAME}: the new model has drifted too far from its anchor"
    message = told_at_its_end(stack, run, told, MODEL_DRIFTED, title)
    assert "from the anchor" in message.text


def told_at_its_end(stack: Machine, run: str, told: Told, event: str, title: str) -> Message:
    """The message that a run's end brings."""
    assert stack.end(run, FINISHED_WITHIN) == "COMPLETED"
    return told(event, title)


def test_a_run_fails(stack: Machine, told: Told) -> None:
    run = stack.run("smoke", {"model_name": "no-such-model"})
    assert stack.end(run) == "FAILED"
    name = stack.api(f"flow_runs/{run}")["name"]
    message = told("prefect.flow-run.Failed", f"{name} failed")
    assert "no-such-model" in message.text
    assert message.link == f"{stack.prefect}/runs/flow-run/{run}"


def test_a_champion_that_was_set_by_hand_is_reverted(
    stack: Machine, reviews: Reviews, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews.make_champion(reviews.passed[0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", stack.mlflow)
    version = reviews.register_refused()
    reviews.client.set_registered_model_alias(NAME, "champion", version)
    message = told(PROMOTION_REVERTED, f"{NAME} version {version} was made champion by hand, and is not any more")
    assert message.text.splitlines()[1] == f"Version {reviews.passed[0]} is the champion again."


def test_a_run_is_late(stack: Machine, told: Told) -> None:
    """Its queue is paused, as where no worker is there to take it."""
    deployment = stack.api("deployments/name/smoke/smoke")
    queue = f"work_queues/{deployment['work_queue_id']}"
    stack.api(queue, {"is_paused": True}, "PATCH")
    try:
        due = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
        run = stack.api(f"deployments/{deployment['id']}/create_flow_run", {"state": state})
        message = told("prefect.flow-run.Late", f"{run['name']} is late")
        assert message.text.startswith("It was due at ")
        assert "has not started" in message.text
        assert message.link == f"{stack.prefect}/runs/flow-run/{run['id']}"
        stack.set_state(run["id"], "CANCELLED", "Cancelled")
    finally:
        stack.api(queue, {"is_paused": False}, "PATCH")


def test_a_test_message_is_an_event_like_the_others(stack: Machine, told: Told) -> None:
    bootstrap(stack, "--notify-test")
    assert told(NOTIFICATION_TEST, "A test message from Plumbline").text == "Notifications arrive here."
