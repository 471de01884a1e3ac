"""An MLflow that cannot be reached or refuses is one line, and its global state is restored."""

import os
import time
from pathlib import Path

import pytest
from boto3.exceptions import S3UploadFailedError  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ProfileNotFound,
)

from alignment.errors import TrackingError
from tasks.registry import connection, records, runs
from tests.tasks.registry.judged import CONFIG, run_of

pytestmark = pytest.mark.usefixtures("local")


@pytest.mark.parametrize("before", [None, "http://mlflow:5000"])
def test_mlflow_s_global_state_is_put_back(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if before:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    with connection.fluent():
        assert mlflow.get_tracking_uri() == connection.place().uri
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://another:5000")
    assert mlflow.get_tracking_uri() == "http://another:5000"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "http://127.0.0.1:9",
            "MLflow at http://127.0.0.1:9: connection refused; start it, or unset MLFLOW_TRACKING_URI",
        ),
        ("http://me:secret@127.0.0.1:9", "MLflow at http://127.0.0.1:9: connection refused"),
        ("http://host.invalid", "MLflow at http://host.invalid: no such host"),
        ("./mlruns", "not an address that works"),
    ],
)
def test_a_server_that_cannot_be_reached_fails_fast(uri: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    runs.configure(uri)
    started = time.monotonic()
    with pytest.raises(TrackingError) as raised:
        runs.check()
    assert str(raised.value).startswith("MLflow at ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - started < 5


def test_a_server_that_has_ended_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    runs.configure("http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"^MLflow at http://127\.0\.0\.1:9: connection refused; [^\n]*$") as raised:
        runs.start_run(CONFIG, "lost")
    assert raised.value.transient


def test_a_file_that_is_no_database_fails_fast(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    runs.configure(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(TrackingError, match="file is not a database"):
        runs.check()


def test_a_reachable_database_passes_the_check() -> None:
    runs.check()


def test_a_deleted_experiment_says_the_way_out() -> None:
    config = CONFIG.model_copy(update={"registry": CONFIG.registry.model_copy(update={"experiment": "doomed"})})
    run = run_of(runs.start_run(config, "first"))
    connection.client().delete_experiment(run.info.experiment_id)
    with pytest.raises(TrackingError, match="experiment 'doomed' was deleted; restore it there, or set another"):
        runs.start_run(config, "second")


def test_a_refusal_of_mlflow_s_is_one_line(run_id: str) -> None:
    with pytest.raises(TrackingError, match=r"^MLflow at sqlite:[^\n]*$") as raised:
        records.log_history(run_id, [{"step": 0, "a metric: with a colon?": 1.0}])
    assert not raised.value.transient


def test_a_task_in_another_process_finds_the_place_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_place", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert connection.place().uri == "http://mlflow:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("PLUMBLINE_HOME", "/somewhere")
    assert connection.place() == connection.Place("sqlite:////somewhere/mlflow.db", Path("/somewhere/artifacts"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NoCredentialsError(), "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (ProfileNotFound(profile="mine"), "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (
            S3UploadFailedError(
                "Failed to upload x: An error occurred (NoSuchBucket) when calling the PutObject operation"
            ),
            "there is no such bucket; create it, or correct PLUMBLINE_ARTIFACTS",
        ),
        (
            ClientError({"Error": {"Code": "ExpiredToken"}}, "GetObject"),
            "the credentials are expired; renew them: AWS_",
        ),
        (ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject"), "refused; the credentials of the environment"),
    ],
)
def test_files_in_a_bucket_that_refuses_are_one_line_with_the_way_out(error: Exception, told: str) -> None:
    with pytest.raises(TrackingError) as raised, connection.guard():
        raise error
    assert str(raised.value).startswith(f"MLflow's files in a bucket: {told}")
    assert not raised.value.transient


def test_files_in_a_bucket_that_does_not_answer_may_be_there_later() -> None:
    told = r"Could not connect to the endpoint URL.*; run again once"
    with pytest.raises(TrackingError, match=told) as raised, connection.guard():
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
    assert raised.value.transient
