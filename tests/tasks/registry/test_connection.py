"""Where MLflow is: what else the environment says of it is not used, and a new database is made by one at a time."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.registry import connection

NAMES = ("MLFLOW_TRACKING_URI", *connection.OTHER_PLACES)


@pytest.fixture(autouse=True)
def _a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_place", connection.Place(f"sqlite:///{tmp_path}/here.db", None))


def test_models_are_registered_where_the_runs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    connection.client().create_registered_model("m")
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    connection._client.cache_clear()
    assert [found.name for found in connection.client().search_registered_models()] == ["m"]
    assert not (tmp_path / "elsewhere.db").exists()


def test_what_the_environment_says_besides_is_told_once_a_check(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://elsewhere")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    connection.check()
    (told,) = [record.getMessage() for record in caplog.records if record.name == "plumbline"]
    assert told.startswith("not used: MLFLOW_REGISTRY_URI, MLFLOW_RUN_ID of the environment")


def test_global_calls_see_one_place_and_put_the_environment_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    for name in NAMES:
        monkeypatch.setenv(name, "http://elsewhere")
    with connection.fluent():
        assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == connection.place().uri
        assert not [name for name in NAMES[1:] if name in os.environ]
    assert {name: os.environ[name] for name in NAMES} == dict.fromkeys(NAMES, "http://elsewhere")


@pytest.mark.parametrize("count", [3])
def test_a_new_database_is_opened_by_several_at_once(count: int, tmp_path: Path) -> None:
    """MLflow itself lets two migrations collide: "table experiments already exists"."""
    code = """
import sys
from tasks.registry import connection
connection.configure(sys.argv[1])
connection.check()
print(connection.experiment("first"))
"""
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/new/mlflow.db"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) for _ in range(count)]
    outputs = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * count, outputs
    assert len({output for output, _ in outputs}) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize(("uri", "file"), [("sqlite:///:memory:", None), ("http://host:5000", None)])
def test_what_is_no_file_has_none(uri: str, file: Any) -> None:
    assert connection.Place(uri, None).database is file


def test_the_environments_mlflow_holds_within_fluent_where_nobody_configured_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in `plumbline plan` and in a worker: the variable is hidden from MLflow there, and what it said is not."""
    monkeypatch.setattr(connection, "_place", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    with connection.fluent():
        assert connection.place().uri == f"sqlite:///{tmp_path}/other.db"
    assert connection._place is None


@pytest.mark.usefixtures("local")
def test_files_of_a_new_experiment_go_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_ARTIFACTS", "s3://bucket/mlflow")
    made = connection.client().get_experiment(connection.experiment("in a bucket"))
    assert made.artifact_location == "s3://bucket/mlflow"
