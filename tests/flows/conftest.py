"""One Prefect server for all flow tests, and one home for a module, so that its tests share finished stages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.flows.small import SMALL


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def at_home(shared_home: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None) -> Path:
    """The module's home, with the tracking database in it."""
    monkeypatch.setenv("PLUMBLINE_HOME", str(shared_home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    return shared_home


@pytest.fixture
def small_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return path
