"""A run's page in Prefect: artifacts of the flow run that follow it, a log in sentences, and no error of its own."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from prefect.runtime import flow_run

from alignment.errors import DataError
from alignment.stages.store import StageRef
from tasks import run_page as pages
from tasks.following import following
from tasks.progress import Event, Progress, StageProgress
from tasks.run_page import RunPage, run_page, stopped
from tasks.running import tell

RUN = "5c1ecff7-1ee2-4d8a-b352-5c3b0a5d6a8a"


class Prefect:
    """A server that keeps artifacts."""

    def __init__(self) -> None:
        self.shown: dict[str, dict[str, Any]] = {}
        self.calls = 0
        self.made: list[str] = []

    def __enter__(self) -> "Prefect":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def create_artifact(self, artifact: Any) -> Any:
        self.calls += 1
        self.made.append(artifact.key)
        self.shown[artifact.key] = artifact.model_dump()
        return type("Made", (), {"id": artifact.key})

    def read_artifacts(self, artifact_filter: Any) -> list[Any]:
        (key,) = artifact_filter.key.any_
        return [type("Found", (), {"id": key})] if key in self.shown else []

    def update_artifact(self, key: Any, artifact: Any) -> None:
        self.calls += 1
        self.shown[key] |= artifact.model_dump(exclude_unset=True)


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    server = Prefect()
    monkeypatch.setattr(pages, "get_client", lambda **_: server)
    monkeypatch.setattr(pages, "EVERY", 0.02)
    monkeypatch.setattr(flow_run, "id", RUN, raising=False)
    return server


def progress() -> Progress:
    return Progress([StageProgress("texts", "write texts"), StageProgress("policy", "train policy", trains=True)])


def until(happened: Any) -> None:
    ends = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_the_artifacts_are_of_the_flow_run_and_follow_it(prefect: Prefect) -> None:
    with run_page({"Model": "small"}) as page, following(progress()):
        until(lambda: "run" in prefect.shown)
        tell(Event("policy", "progress", 75, 150))
        until(lambda: prefect.shown["progress"]["data"] == 25)
        assert prefect.shown["run"]["description"] == "stage 2 of 2: train policy, step 75 of 150"
        assert prefect.shown["progress"]["description"] == "stage 2 of 2: train policy, step 75 of 150"
        page.outcome = "passed"
    assert prefect.shown["run"]["description"] == "passed"
    assert {str(each["flow_run_id"]) for each in prefect.shown.values()} == {RUN}
    assert {each["task_run_id"] for each in prefect.shown.values()} == {None}


def test_what_has_not_changed_is_not_written_again(prefect: Prefect) -> None:
    with run_page({"Model": "small"}):
        until(lambda: len(prefect.shown) == 2)
        time.sleep(0.2)
        assert prefect.calls == 2


def test_on_a_retry_the_same_artifacts_go_on(prefect: Prefect) -> None:
    for model in ("first", "second"):
        with run_page({"Model": model}) as page:
            page.outcome = model
    assert prefect.shown["run"]["data"] == "- Model: second"
    assert prefect.made == ["run", "progress"]


def test_a_server_that_is_away_stops_nothing(prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(prefect, "create_artifact", away)
    with run_page({}), following(progress()):
        tell(Event("policy", "progress", 1, 2))
        time.sleep(0.1)
    assert prefect.shown == {}


def test_the_page_says_why_a_run_stopped_and_how_to_go_on(prefect: Prefect) -> None:
    def cancelled() -> None:
        with run_page({}), following(progress()):
            tell(Event("policy", "progress", 1, 2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancelled()
    assert prefect.shown["run"]["description"] == (
        "Stopped at stage 2 of 2: train policy. What is finished is kept in the store, and a training goes on from its "
        "last checkpoint: press Retry, or run it again."
    )
    assert "**stopped**" in prefect.shown["run"]["data"]


def test_what_another_try_would_not_mend_is_not_to_be_tried_again() -> None:
    assert stopped(None, DataError("a.csv: is empty\nand so on")) == (
        "a.csv: is empty. Stopped. What is finished is kept in the store."
    )


def test_the_log_has_a_line_for_each_stage_and_one_now_and_then(
    monkeypatch: pytest.MonkeyPatch, prefect: Prefect, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pages, "LINE_EVERY", 0.2)
    monkeypatch.setattr(pages, "FIRST_LINE_AFTER", 0.1)
    done = StageRef(stage="texts", key="k", path=Path(), digest="d", counts={"kept": 3}, seconds=1.0)
    with caplog.at_level(logging.INFO), run_page({}), following(progress()):
        tell(Event("texts", "started"))
        tell(Event("texts", "computed", ref=done))
        tell(Event("policy", "started"))
        tell(Event("policy", "progress", 1, 150))
        until(lambda: "step 1 of 150" in caplog.text)
        tell(Event("policy", "progress", 2, 150))
        until(lambda: "step 2 of 150" in caplog.text)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:3] == [
        "stage 1 of 2: write texts: 3 kept, 1.0 s",
        "stage 2 of 2: train policy, step 1 of 150",
        "stage 2 of 2: train policy, step 2 of 150",
    ]


def test_outside_of_a_flow_run_there_is_no_artifact(monkeypatch: pytest.MonkeyPatch, prefect: Prefect) -> None:
    page = RunPage({}, "", logging.getLogger("plumbline"))
    page.start()
    page.end()
    assert prefect.calls == 0
