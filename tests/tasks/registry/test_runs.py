"""A run in MLflow: its parameters and tags, and how it ends."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.exceptions import CancelledRun, TerminationSignal

from alignment.config import flatten
from alignment.errors import Interrupted, NothingNewError, TrackingError
from tasks.registry import columns, connection, runs
from tests.tasks.registry.judged import CONFIG, artifact, run_of

pytestmark = pytest.mark.usefixtures("local")


def test_a_run_holds_every_field_of_the_config_and_links_to_prefect(home: Path) -> None:
    tags = {"prefect.flow_run_id": "abc", "prefect.flow_run_url": ""}
    run = run_of(runs.start_run(CONFIG, "calm-owl", tags, note="**why**"))
    assert run.data.params == {name: str(value) for name, value in flatten(CONFIG).items()}
    assert run.info.run_name == "calm-owl"
    assert run.info.artifact_uri.startswith((home / "artifacts").as_uri())
    assert run.data.tags["prefect.flow_run_id"] == "abc"
    assert "prefect.flow_run_url" not in run.data.tags
    assert run.data.tags["verdict"] == "running"
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("**Running**")
    assert note.endswith("**why**")
    assert run_of(runs.start_run(CONFIG, "")).info.run_name == "hinge, beta 0.5, lr 0.0003"


def test_a_value_longer_than_mlflow_takes_is_cut_visibly() -> None:
    config = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"path": "x" * 7_000})})
    value = run_of(runs.start_run(config, "long")).data.params["data.path"]
    assert len(value) == 6_000
    assert value.endswith("…")


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_as_it_ended(run_id: str, status: runs.Status) -> None:
    runs.finish(run_id, status)
    assert run_of(run_id).info.status == status
    assert run_of(run_id).info.end_time is not None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (CancelledRun("by a person"), "KILLED"),
        (TerminationSignal(15), "KILLED"),
        (Interrupted("asked to"), "KILLED"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_an_error_ends_the_run_and_goes_on_its_way(error: BaseException, status: str) -> None:
    with pytest.raises(type(error)) as raised, runs.run(CONFIG, "ends") as run_id:
        raise error
    assert raised.value is error
    run = run_of(run_id)
    assert run.info.status == status
    ended = {"FAILED": "failed", "KILLED": "cancelled"}[status]
    assert run.data.tags["verdict"] == ended
    assert run.data.tags["mlflow.note.content"].startswith(f"**{ended.capitalize()}**")
    assert run.data.tags.get("plumbline.reason") == (str(error) if status == "FAILED" else None)


def test_a_round_with_nothing_new_is_finished_and_says_that_it_was_skipped() -> None:
    with pytest.raises(NothingNewError), runs.run(CONFIG, "skipped") as run_id:
        raise NothingNewError("nothing new to learn from: 3 prompts")
    run = run_of(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["plumbline.verdict"] == "skipped"
    assert run.data.tags["plumbline.reason"] == "nothing new to learn from: 3 prompts"
    assert run.data.tags["verdict"] == "skipped"
    assert "nothing new to learn from: 3 prompts" in run.data.tags["mlflow.note.content"]


def test_what_people_wrote_below_a_description_stays_when_the_run_is_judged(run_id: str) -> None:
    before = run_of(run_id).data.tags["mlflow.note.content"]
    runs.tag(run_id, {"mlflow.note.content": f"{before}\n\nMind the seed."})
    runs.conclude(run_id, "fail", "KL too high.", told="- KL: 0.31", links={"sweep": "#/x"})
    tags = run_of(run_id).data.tags
    note = tags["mlflow.note.content"]
    assert note.startswith("**Refused** · [sweep](#/x) · [report](#/experiments/")
    assert "KL too high.\n\n- KL: 0.31" in note
    assert note.endswith("Mind the seed.")
    assert "Running" not in note
    assert (tags["plumbline.verdict"], tags["plumbline.reason"], tags["verdict"]) == ("fail", "KL too high.", "refused")


def test_an_experiment_offers_the_columns_of_the_results_once(run_id: str) -> None:
    where = run_of(run_id).info.experiment_id
    client = connection.client()
    view = client.get_experiment(where).tags[columns.TAG]
    state = json.loads(json.loads(view)["state"])
    assert state["selectedColumns"][:2] == ["tags.`verdict`", "metrics.`Result/reward_gain`"]
    assert set(state["columnWidths"]) == set(state["selectedColumns"])
    for kept in (view, "mine", "[]", "{}"):
        client.set_experiment_tag(where, columns.TAG, kept)
        runs.start_run(CONFIG, "the next one")
        assert client.get_experiment(where).tags[columns.TAG] == kept


@pytest.mark.parametrize("changed", [False, True], ids=["as it was made", "changed by a person"])
def test_columns_of_an_earlier_release_are_brought_up_to_date_unless_a_person_changed_them(
    changed: bool, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow sets `updatedAt` anew whenever somebody saves a view."""
    where = run_of(run_id).info.experiment_id
    with monkeypatch.context() as earlier:
        earlier.setattr(columns, "COLUMNS", {"tags.`verdict`": 100})
        view = json.loads(columns.saved_view(1.0)) | ({"updatedAt": 2_000} if changed else {})
    client = connection.client()
    client.set_experiment_tag(where, columns.TAG, json.dumps(view))
    runs.start_run(CONFIG, "the next one")
    found = json.loads(client.get_experiment(where).tags[columns.TAG])
    assert (found == view) is changed
    assert (len(json.loads(found["state"])["selectedColumns"]) == 1) is changed


def test_a_run_without_an_error_is_finished_and_holds_its_config() -> None:
    with runs.run(CONFIG, "ends") as run_id:
        assert run_of(run_id).info.status == "RUNNING"
    assert run_of(run_id).info.status == "FINISHED"
    assert yaml.safe_load(artifact(run_id, "config.yaml").read_text())["dpo"]["beta"] == CONFIG.dpo.beta


def test_an_mlflow_that_fails_at_the_end_does_not_hide_the_error(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        with runs.run(CONFIG, "lost"):
            runs.configure("http://127.0.0.1:9")
            raise ValueError("the reason")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(ValueError, match="the reason"):
            work()
    assert "could not be ended as FAILED: MLflow at http://127.0.0.1:9: connection refused" in caplog.text


def test_a_run_whose_parameters_were_refused_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.model_copy(update={"registry": CONFIG.registry.model_copy(update={"experiment": "refusing"})})

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("Connection reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.log_batch", refuse)
        with pytest.raises(TrackingError) as raised:
            runs.start_run(config, "refused")
    assert raised.value.transient
    (run,) = connection.client().search_runs([connection.experiment("refusing")])
    assert run.info.status == "FAILED"


def test_runs_of_dead_processes_are_ended_by_the_next_one() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    here = {"plumbline.host": socket.gethostname(), "plumbline.pid": str(gone.pid)}
    dead = runs.start_run(CONFIG, "dead", here)
    elsewhere = runs.start_run(CONFIG, "elsewhere", here | {"plumbline.host": "elsewhere"})
    alive = runs.start_run(CONFIG, "alive")
    runs.start_run(CONFIG, "next")
    assert [run_of(run).info.status for run in (dead, elsewhere, alive)] == ["FAILED", "RUNNING", "RUNNING"]
    assert run_of(dead).data.tags["plumbline.ended"].startswith(f"process {gone.pid} on ")
    assert run_of(dead).data.tags["verdict"] == "failed"
    assert f"Its process {gone.pid} on " in run_of(dead).data.tags["mlflow.note.content"]


def test_a_local_run_is_shown_by_a_command(run_id: str, home: Path) -> None:
    """The home has a blank in its name: the command is quoted for a shell."""
    assert runs.run_url(run_id).startswith(f"mlflow ui --backend-store-uri 'sqlite:///{home}/mlflow.db', then http://")
    assert run_id in runs.run_url(run_id)
