"""Artifacts of a flow run: shown once however often a run is retried, and never a reason for it to fail."""

import logging
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.runtime import flow_run

from tasks import artifacts


class Prefect:
    """A server that keeps artifacts by their key."""

    def __init__(self) -> None:
        self.kept: dict[UUID, Any] = {}

    def __enter__(self) -> "Prefect":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_artifacts(self, artifact_filter: Any) -> list[Any]:
        return [SimpleNamespace(id=made) for made, each in self.kept.items() if each.key in artifact_filter.key.any_]

    def create_artifact(self, artifact: Any) -> Any:
        made = uuid4()
        self.kept[made] = artifact
        return SimpleNamespace(id=made)

    def update_artifact(self, made: UUID, artifact: Any) -> None:
        self.kept[made] = self.kept[made].model_copy(update=artifact.model_dump(exclude_unset=True))


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_run, "id", str(uuid4()), raising=False)


def test_a_retry_shows_it_in_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Prefect()
    monkeypatch.setattr(artifacts, "get_client", lambda **_: server)
    artifacts.show("sweep", "[]", "0 of 3 points passed", "table")
    artifacts.show("sweep", "[1]", "1 of 3 points passed", "table")
    (kept,) = server.kept.values()
    assert (kept.key, kept.type, kept.data, kept.description) == ("sweep", "table", "[1]", "1 of 3 points passed")


def test_a_server_that_is_away_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def away(**_: Any) -> None:
        raise ConnectionRefusedError("connection refused")

    monkeypatch.setattr(artifacts, "get_client", away)
    with caplog.at_level(logging.WARNING):
        artifacts.show("sweep", "[]", "0 of 3 points passed", "table")
    assert "the artifact 'sweep' could not be shown in Prefect: connection refused" in caplog.text
