"""The account of workers: on a real server with users it may do what runs do, and nothing of an administrator's."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from alignment.errors import ConfigError, TrackingError
from flows.stack.processes import LOOPBACK, free_port, wait_for_answer
from tasks.registry.accounts import Account, apply_account, configured_account

ADMIN = Account("admin", "a-password-of-an-administrator")
WORKER = Account("worker", "a-password-of-the-workers")
MODEL = "film"


def test_the_environment_names_an_account_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUMBLINE_MLFLOW_USER", raising=False)
    assert configured_account() is None
    monkeypatch.setenv("PLUMBLINE_MLFLOW_USER", "worker")
    monkeypatch.delenv("PLUMBLINE_MLFLOW_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match="PLUMBLINE_MLFLOW_PASSWORD"):
        configured_account()
    monkeypatch.setenv("PLUMBLINE_MLFLOW_PASSWORD", "secret")
    assert configured_account() == Account("worker", "secret")
    assert "secret" not in repr(configured_account())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with users, started as docker/compose.yaml starts it, but on SQLite."""
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nauthorization_function = "
        f"mlflow.server.auth:authenticate_request_basic_auth\ndatabase_uri = sqlite:///{folder / 'auth.db'}\n"
    )
    port = free_port(0)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN.user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-key-of-a-test",
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [*(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1")]
    log = folder / "log"
    with log.open("w") as out:
        server = subprocess.Popen([*command, "--app-name", "basic-auth"], env=environment, stdout=out, stderr=out)
    try:
        found = f"http://{LOOPBACK}:{port}"
        wait_for_answer(server, "mlflow", f"{found}/health", log, 240, lambda: False)
        yield found
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def sign_in(address: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Account], Any]:
    """Be this user from now on; returns a client."""
    from mlflow import MlflowClient

    from tasks.registry import connection

    monkeypatch.setattr(connection, "_place", connection.Place(address, None))

    def be(account: Account) -> Any:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", account.user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", account.password)
        return MlflowClient(address)

    return be


@pytest.mark.stack
def test_the_account_writes_runs_and_moves_aliases_and_makes_neither_users_nor_webhooks(
    sign_in: Callable[[Account], Any],
) -> None:
    from mlflow.exceptions import MlflowException

    admin = sign_in(ADMIN)
    experiment = admin.create_experiment("made-by-the-administrator")
    admin.create_registered_model(MODEL)
    assert apply_account(WORKER) is True
    assert apply_account(WORKER) is False, "again: it stays"

    worker = sign_in(WORKER)
    run = worker.create_run(experiment).info
    worker.log_metric(run.run_id, "reward", 1.0)
    worker.log_text(run.run_id, "weights", "model/weights.txt")
    version = worker.create_model_version(MODEL, f"{run.artifact_uri}/model", run.run_id).version
    worker.set_model_version_tag(MODEL, version, "decision", "promoted")
    worker.set_registered_model_alias(MODEL, "champion", version)
    worker.delete_registered_model_alias(MODEL, "champion")
    worker.create_experiment("made-by-the-worker")

    with pytest.raises(MlflowException, match="Permission denied"):
        worker.create_webhook(name="mine", url="https://example.org/", events=["model_version_alias.created"])
    with pytest.raises(MlflowException, match="Permission denied"):
        worker.delete_run(run.run_id)
    with pytest.raises(TrackingError):
        apply_account(Account("friend", "a-password-of-a-friend"))
