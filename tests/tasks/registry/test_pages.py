"""Links into MLflow open its side for training runs; where no server is, they say how to start one."""

from pathlib import Path

import pytest

from alignment.judging.links import is_link
from tasks.registry import connection, pages

SERVER = "https://ml.example.org/"
SIDE = "?workflowType=machine_learning"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_place", connection.Place(SERVER, None))


@pytest.mark.usefixtures("server")
def test_every_page_is_a_link_into_the_side_for_training_runs() -> None:
    base = "https://ml.example.org/#/"
    assert pages.run_page("4", "abc") == f"{base}experiments/4/runs/abc{SIDE}"
    assert pages.experiment_page("4") == f"{base}experiments/4/runs{SIDE}"
    assert pages.experiments_page() == f"{base}experiments{SIDE}"
    assert pages.models_page() == f"{base}models{SIDE}"
    assert pages.model_page("shop/reviews 2") == f"{base}models/shop%2Freviews%202{SIDE}"
    assert pages.version_page("reviews", "3") == f"{base}models/reviews/versions/3{SIDE}"
    assert pages.artifact_page("4", "abc", "a b.html") == f"{base}experiments/4/runs/abc/artifacts/a%20b.html{SIDE}"
    assert is_link(pages.models_page())


@pytest.mark.usefixtures("server")
def test_a_link_within_mlflows_pages_has_no_address_that_could_change() -> None:
    assert pages.version_page("reviews", "3", pages.INSIDE) == f"#/models/reviews/versions/3{SIDE}"
    assert pages.results_page("4", pages.INSIDE) == f"#/experiments/4/runs{SIDE}&viewStateShareKey=plumbline"


@pytest.mark.usefixtures("server")
def test_people_may_open_mlflow_at_another_address_than_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pages.PUBLIC, "https://people.example.org/ml/")
    assert pages.models_page() == f"https://people.example.org/ml/#/models{SIDE}"
    assert pages.models_page("http://127.0.0.1:5000") == f"http://127.0.0.1:5000/#/models{SIDE}"


def test_a_database_is_shown_by_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connection, "_place", connection.Place(f"sqlite:///{tmp_path}/a b.db", tmp_path))
    page = pages.run_page("1", "abc")
    assert page == (
        f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/a b.db', "
        f"then http://127.0.0.1:5000/#/experiments/1/runs/abc{SIDE}"
    )
    assert not is_link(page)
