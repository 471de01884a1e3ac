"""The processes of a stack: their environment, their secrets, and the folder of the project."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alignment.errors import ConfigError
from flows.stack.logs import Log
from flows.stack.processes import MARK, end_marked
from flows.stack.services import NOTIFY_URL, Ports, Service, make_services, project_folder, secret, stack_file

PROJECT = Path(__file__).parents[3]


def test_a_secret_is_made_once_for_its_owner_alone_and_is_a_key(home: Path) -> None:
    from cryptography.fernet import Fernet

    first = secret(home, "encryption")
    assert secret(home, "encryption") == first != secret(home, "webhook")
    assert (stack_file(home, "secret") / "encryption").stat().st_mode & 0o777 == 0o600
    assert stack_file(home, "secret").stat().st_mode & 0o777 == 0o700
    Fernet(first)


def test_the_processes_get_the_addresses_of_their_own_servers_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    monkeypatch.setenv("PREFECT_API_KEY", "somebody's")
    services = make_services(home, Ports(1, 2, 3), PROJECT)
    assert list(services) == ["prefect", "mlflow", "receiver", "worker"]
    for service in services.values():
        assert "elsewhere" not in " ".join(service.env.values())
        assert "PREFECT_API_KEY" not in service.env
        assert "0.0.0.0" not in service.command
        assert secret(home, "encryption") not in service.command
    assert services["worker"].env["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert services["worker"].env["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:2"
    assert services["mlflow"].env["MLFLOW_SERVER_ALLOWED_HOSTS"] == "127.0.0.1:2,localhost:2"
    assert "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY" not in services["worker"].env


def test_none_of_the_processes_gets_the_address_of_the_notifications(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a secret, and the bootstrap alone keeps it in Prefect."""
    monkeypatch.setenv(NOTIFY_URL, "https://hooks.example.org/secret")
    for service in make_services(home, Ports(), Path("/project")).values():
        assert NOTIFY_URL not in service.env


def test_a_form_s_relative_path_is_looked_for_where_a_run_looks_for_it(home: Path, tmp_path: Path) -> None:
    """Prefect's server checks it in the project's folder; the others stay where `plumbline up` was called."""
    services = make_services(home, Ports(), tmp_path / "project")
    assert {name: service.folder for name, service in services.items() if service.folder} == {
        "prefect": tmp_path / "project"
    }


def test_a_service_works_in_its_folder(home: Path, worker: "Begin") -> None:
    service = worker([sys.executable, "-c", "import os; print(os.getcwd())"])
    service.folder = home / "elsewhere"
    service.folder.mkdir()
    service.start()
    assert service.process is not None
    assert service.process.wait(30) == 0
    assert service.log.path.read_text().strip() == str(service.folder)


def test_mlflows_own_names_of_its_settings_are_the_ones_that_are_set(home: Path) -> None:
    """`mlflow server` hands them to uvicorn; they are not public, so that an upgrade may rename them."""
    from mlflow import environment_variables as variables
    from mlflow.server import constants

    known = {getattr(constants, name) for name in vars(constants) if name.endswith("_ENV_VAR")} | {
        item.name for item in vars(variables).values() if hasattr(item, "name")
    }
    set_here = {name for name in make_services(home, Ports(), PROJECT)["mlflow"].env if "MLFLOW_" in name}
    assert set_here - set(os.environ) - known == set()


def test_the_project_is_the_folder_of_prefect_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_PROJECT", raising=False)
    assert project_folder() == PROJECT
    monkeypatch.setenv("PLUMBLINE_PROJECT", str(tmp_path))
    with pytest.raises(ConfigError, match=r"holds no prefect\.yaml"):
        project_folder()


Begin = Callable[[list[str]], Service]


@pytest.fixture
def worker(home: Path) -> Iterator[Begin]:
    """A worker with the given command, not started yet."""
    made: list[Service] = []

    def make(command: list[str]) -> Service:
        made.append(Service("worker", command, os.environ | {MARK: str(home)}, Log(home / "worker.log")))
        return made[-1]

    yield make
    end_marked(home)
    for service in made:
        assert service.process is not None
        service.process.wait()
