"""What goes on in a stack, from what Prefect's API answers: the names that people know, and what they can do."""

from datetime import UTC, datetime
from typing import Any

from flows.stack.activity import Activity, run_rows, schedule_rows

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
WHERE = "http://127.0.0.1:4200"
DEPLOYMENTS: list[dict[str, Any]] = [
    {"id": "d1", "name": "align", "schedules": []},
    {
        "id": "d2",
        "name": "retrain",
        "schedules": [
            {"slug": "weekly", "active": False, "schedule": {"cron": "0 3 * * 1", "timezone": "UTC"}},
            {"slug": None, "active": True, "schedule": {"interval": 3600.0, "timezone": "UTC"}},
        ],
    },
]


def run(name: str, kind: str, began: str | None, **fields: Any) -> dict[str, Any]:
    named = {"RUNNING": "Running", "PAUSED": "Paused", "SCHEDULED": "Scheduled"}
    start = {"start_time": began, "expected_start_time": began}
    return (
        {"id": "r1", "name": name, "state_type": kind, "state_name": named[kind], "deployment_id": "d1"}
        | start
        | fields
    )


def rows(*runs: dict[str, Any]) -> list[str]:
    return [" | ".join(filter(None, row)) for row in run_rows(Activity(DEPLOYMENTS, runs), WHERE, NOW)]


def test_a_run_at_work_is_shown_with_its_deployment_its_time_and_a_state_of_its_own() -> None:
    assert rows(
        run("hinge, beta 0.5", "RUNNING", "2026-11-26T11:57:00+00:00"),
        run("hinge, beta 0.6", "RUNNING", "2026-11-26T11:59:48+00:00", state_name="WaitingForSlot"),
        run("from a terminal", "RUNNING", "2026-11-26T11:59:48+00:00", deployment_id=None),
    ) == [
        "run | hinge, beta 0.5 (align, for 3 min)",
        "run | hinge, beta 0.6 (align, for 12 s, WaitingForSlot)",
        "run | from a terminal (for 12 s)",
    ]


def test_a_question_is_shown_with_the_page_that_answers_it() -> None:
    assert rows(run("promote m v3", "PAUSED", "2026-11-26T11:00:00+00:00")) == [
        f"approval | promote m v3 waits for a person | {WHERE}/runs/flow-run/r1"
    ]


def test_what_is_due_counts_as_queued_and_what_is_planned_for_later_does_not() -> None:
    due, later = "2026-11-26T11:59:00+00:00", "2026-11-30T03:00:00+00:00"
    planned = [run("a", "SCHEDULED", None, expected_start_time=when) for when in (due, due, later)]
    assert rows(*planned) == ["queue | 2 runs wait to be started"]
    assert rows(planned[2]) == []


def test_of_many_runs_the_first_are_named_and_the_others_counted() -> None:
    many = rows(*(run(f"run {number}", "RUNNING", "2026-11-26T11:00:00+00:00") for number in range(8)))
    assert many[4:] == ["run | run 4 (align, for 1 h)", "run | and 3 more"]


def test_jobs_that_compute_shards_are_counted_in_one_row() -> None:
    since = "2026-11-26T11:57:00+00:00"
    jobs = [run("mine: samples 0-8", kind, since, tags=["plumbline-shards"]) for kind in ("RUNNING", "SCHEDULED")]
    assert rows(run("mine", "RUNNING", since, tags=["plumbline"]), *jobs) == [
        "run | mine (align, for 3 min)",
        "shards | jobs at work: 1, waiting: 1",
    ]


def test_a_schedule_says_whether_it_is_active_and_where_that_is_changed() -> None:
    assert [row.text for row in schedule_rows(Activity(DEPLOYMENTS, []))] == [
        "retrain weekly (0 3 * * 1, UTC) is paused; see Deployments, retrain",
        "retrain by hand (every 3600 s, UTC) is active; see Deployments, retrain",
    ]
