"""What goes on in a stack's Prefect: runs at work, questions that wait for a person, runs in the queue, schedules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from alignment.judging.formats import about
from flows.stack.processes import call
from tasks.addresses import flow_run_url
from tasks.runners import TAG

SHOWN = 5  # runs of a kind; the others are counted
AT_WORK = {"RUNNING", "CANCELLING", "PENDING"}


class Row(NamedTuple):
    """One line of what is shown, and the page where a person does something about it."""

    heading: str
    text: str
    page: str = ""


@dataclass(frozen=True)
class Activity:
    """What Prefect says of its deployments and of the runs that have not ended."""

    deployments: Sequence[Mapping[str, Any]]
    runs: Sequence[Mapping[str, Any]]


def read_activity(prefect: str) -> Activity:
    """Ask Prefect at this address. Raises OSError if it does not answer."""
    unfinished = {"state": {"type": {"any_": [*AT_WORK, "PAUSED", "SCHEDULED"]}}}
    wanted = {"flow_runs": unfinished, "sort": "EXPECTED_START_TIME_ASC"}
    return Activity(
        call("POST", f"{prefect}/api/deployments/filter", {"sort": "NAME_ASC"}),
        call("POST", f"{prefect}/api/flow_runs/filter", wanted),
    )


def run_rows(found: Activity, prefect: str, now: datetime) -> list[Row]:
    """A row for each run at work, each question, and the queue; of many the first few, and a count.

    Jobs that compute shards for such a run have one row together.
    """
    names = {each["id"]: each["name"] for each in found.deployments}
    jobs = [run for run in found.runs if TAG in (run.get("tags") or ())]
    runs = [run for run in found.runs if run not in jobs]
    at_work = [run for run in runs if run["state_type"] in AT_WORK]
    asking = [run for run in runs if run["state_type"] == "PAUSED"]
    due = [run for run in runs if run["state_type"] == "SCHEDULED" and _seconds_since(run, now) > 0]
    rows = _listed([Row("run", f"{run['name']} ({_work(run, names, now)})") for run in at_work])
    rows += _listed(
        [Row("approval", f"{run['name']} waits for a person", flow_run_url(run["id"], prefect)) for run in asking]
    )
    if jobs:
        begun = sum(run["state_type"] in AT_WORK for run in jobs)
        rows.append(Row("shards", f"jobs at work: {begun}, waiting: {len(jobs) - begun}"))
    if due:
        rows.append(Row("queue", f"{len(due)} {'runs wait' if len(due) > 1 else 'run waits'} to be started"))
    return rows


def schedule_rows(found: Activity) -> list[Row]:
    """A row for each schedule: when it is due, whether it is active, and where a person changes that."""
    return [
        Row("schedule", f"{each['name']} {_when(schedule)} is {_state(schedule)}; see Deployments, {each['name']}")
        for each in found.deployments
        for schedule in each["schedules"]
    ]


def _listed(rows: list[Row]) -> list[Row]:
    left = len(rows) - SHOWN
    return [*rows[:SHOWN], Row(rows[0].heading, f"and {left} more")] if left > 0 else rows


def _state(schedule: Mapping[str, Any]) -> str:
    return "active" if schedule["active"] else "paused"


def _work(run: Mapping[str, Any], names: Mapping[str, str], now: datetime) -> str:
    """The deployment, the time since the start, and the state where it has a name of its own."""
    seconds = _seconds_since(run, now)
    own = run["state_name"]
    lasts = f"for {about(max(seconds, 0))}"
    told = [names.get(run["deployment_id"] or "", ""), lasts, own if own.upper() != run["state_type"] else ""]
    return ", ".join(word for word in told if word)


def _seconds_since(run: Mapping[str, Any], now: datetime) -> float:
    began = run["start_time"] or run["expected_start_time"]
    return (now - datetime.fromisoformat(began)).total_seconds() if began else 0.0


def _when(schedule: Mapping[str, Any]) -> str:
    timed = schedule["schedule"]
    rule = timed.get("cron") or timed.get("rrule") or f"every {timed.get('interval', 0):.0f} s"
    zone = timed.get("timezone")
    return f"{schedule['slug'] or 'by hand'} ({rule}{f', {zone}' if zone else ''})"


def utc_now() -> datetime:
    """The time, as Prefect's times are."""
    return datetime.now(UTC)
