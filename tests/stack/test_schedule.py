"""Retraining that nobody starts: its schedule is in Prefect's UI, and a due time or an event starts a run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tasks.events import DATA_ARRIVED
from tests.stack.browser import picture
from tests.stack.machine import Machine, wait_for
from tests.stack.reviews import FINISHED_WITHIN, now, runs_of, settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def retrain(stack: Machine) -> Iterator[str]:
    """The deployment's id, while its parameters are small ones."""
    deployment = stack.api("deployments/name/retrain/retrain")
    small = settings(registry={"model_name": "on-schedule", "experiment": "on-schedule"})
    where = f"deployments/{deployment['id']}"
    stack.api(where, {"parameters": small}, "PATCH")
    yield deployment["id"]
    stack.api(where, {"parameters": deployment["parameters"]}, "PATCH")


def begun(stack: Machine, since: str, by: str) -> dict[str, Any]:
    """The first run of `retrain` that a schedule or an automation made, once it has begun."""

    def found() -> list[dict[str, Any]]:
        return [
            run
            for run in runs_of(stack, "retrain", since)
            if (run["created_by"] or {}).get("type") == by and run["start_time"]
        ]

    wait_for(lambda: bool(found()), FINISHED_WITHIN, f"a run made by {by}")
    return found()[0]


def flip(page: "Page") -> None:
    """Press the schedule's switch, of which the page has one for each of its layouts."""
    page.locator(".deployment-schedule-card .p-toggle__control").locator("visible=true").first.click()


def test_the_weekly_schedule_is_shown_paused_and_a_person_turns_it_on(
    stack: Machine, retrain: str, page: "Page"
) -> None:
    page.goto(f"{stack.prefect}/deployments/deployment/{retrain}")
    page.get_by_text("plumbline: data arrived, retrain").first.wait_for()
    page.get_by_text("weekly").first.hover()
    page.get_by_text("At 03:00 AM, only on Monday (UTC)").first.wait_for()
    (weekly,) = stack.api(f"deployments/{retrain}/schedules")
    assert not weekly["active"]
    picture(page, "prefect-retrain", height=390, after=1)
    flip(page)
    wait_for(lambda: stack.api(f"deployments/{retrain}/schedules")[0]["active"], 30, "the schedule")
    coming = {"deployments": {"id": {"any_": [retrain]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    wait_for(lambda: bool(stack.api("flow_runs/filter", coming)), 120, "Prefect's next look at the schedules")
    page.reload()
    page.locator("li.p-tab", has_text="Upcoming").click()
    page.get_by_text("auto-scheduled").locator("visible=true").first.wait_for()
    page.goto(f"{stack.prefect}/deployments/deployment/{retrain}")
    flip(page)
    wait_for(lambda: not stack.api(f"deployments/{retrain}/schedules")[0]["active"], 30, "the pause")


def test_a_run_starts_when_it_is_due(stack: Machine, retrain: str, figures: Any) -> None:
    began = now()
    soon = datetime.now(UTC) + timedelta(seconds=15)
    often = {"interval": 60, "anchor_date": soon.isoformat(), "timezone": "UTC"}
    (schedule,) = stack.api(f"deployments/{retrain}/schedules", [{"active": True, "schedule": often}])
    try:
        run = begun(stack, began, "SCHEDULE")
    finally:
        stack.api(f"deployments/{retrain}/schedules/{schedule['id']}", method="DELETE")

    assert run["auto_scheduled"] is True
    assert stack.end(run["id"], FINISHED_WITHIN) == "COMPLETED"
    late = datetime.fromisoformat(run["start_time"]) - datetime.fromisoformat(run["expected_start_time"])
    figures("a scheduled run", late.total_seconds(), "from its due time to its start")


def test_a_run_starts_when_data_arrives(stack: Machine, retrain: str) -> None:
    began = now()
    event = {
        "id": str(uuid4()),
        "event": DATA_ARRIVED,
        "occurred": began,
        "resource": {"prefect.resource.id": "plumbline.data"},
    }
    stack.api("events", [event])

    run = begun(stack, began, "AUTOMATION")
    assert stack.end(run["id"], FINISHED_WITHIN) == "COMPLETED"
