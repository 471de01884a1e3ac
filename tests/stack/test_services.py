"""The services of docker/compose.yaml with its own settings, as processes: PostgreSQL, Redis, Prefect and MLflow."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.stack.cluster import PASSWORDS
from tests.stack.docker import SECRETS, Site
from tests.stack.processes import wait_until
from tests.stack.services import POSTGRES_BIN, postgres_and_redis, server

pytestmark = pytest.mark.stack

PREFECT_USER = PASSWORDS.prefect
LEASE = 600  # seconds; a shorter one may end while the server starts, and its slot is given back
MLFLOW_USER = ":".join(PASSWORDS.mlflow)


@dataclass(frozen=True)
class Stack:
    site: Site
    prefect: str
    mlflow: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with postgres_and_redis(tmp_path_factory.mktemp("databases")) as running:
        yield running


@pytest.fixture(scope="module")
def stack(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("servers")
    with (
        server(site, "prefect", folder / "prefect.log") as prefect,
        server(site, "mlflow", folder / "mlflow.log") as mlflow,
    ):
        yield Stack(site, prefect, mlflow)


def ask(url: str, user: str = "", body: Any = None, host: str = "", method: str = "") -> tuple[int, Any]:
    """The status and the JSON of a GET, or of a POST where there is a body."""
    headers = {"Content-Type": "application/json"}
    if user:
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    if host:
        headers["Host"] = host
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method or None)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, _json(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, _json(error.read())


def _json(body: bytes) -> Any:
    try:
        return json.loads(body or b"null")
    except json.JSONDecodeError:
        return body.decode()


def sql(site: Site, role: str, database: str, query: str) -> subprocess.CompletedProcess[str]:
    where = [f"--host=127.0.0.1 --port={site.ports['postgres']} --username={role} --dbname={database}"]
    return subprocess.run(
        [
            str(POSTGRES_BIN / "psql"),
            *where[0].split(),
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--command",
            query,
        ],
        env={"PGPASSWORD": SECRETS[f"{role.upper()}_DB_PASSWORD"]},
        check=False,
        capture_output=True,
        text=True,
    )


def redis(site: Site, *command: str, password: str = SECRETS["REDIS_PASSWORD"]) -> str:
    called = ["redis-cli", "-p", str(site.ports["redis"]), *command]
    env = {"PATH": "/usr/bin:/bin", "REDISCLI_AUTH": password}
    return subprocess.run(called, env=env, check=False, capture_output=True, text=True).stdout.strip()


def slots(stack: Stack, limit: str) -> int:
    return int(ask(f"{stack.prefect}/api/v2/concurrency_limits/{limit}", PREFECT_USER)[1]["active_slots"])


def take_slot(stack: Stack, limit: str) -> tuple[int, Any]:
    body = {"names": [limit], "slots": 1, "mode": "concurrency", "lease_duration": LEASE}
    return ask(f"{stack.prefect}/api/v2/concurrency_limits/increment-with-lease", PREFECT_USER, body)


def test_each_role_reaches_its_own_databases_only(site: Site) -> None:
    assert sql(site, "prefect", "prefect", "SELECT 1").stdout == "1\n"
    assert sql(site, "mlflow", "mlflow", "SELECT 1").stdout == "1\n"
    assert sql(site, "mlflow", "mlflow_auth", "SELECT 1").stdout == "1\n"
    refused = sql(site, "mlflow", "prefect", "SELECT 1")
    assert refused.returncode != 0
    assert "permission denied for database" in refused.stderr


def test_redis_asks_for_its_password_and_keeps_what_it_is_told(site: Site) -> None:
    assert redis(site, "ping") == "PONG"
    assert "NOAUTH" in redis(site, "ping", password="")
    assert redis(site, "config", "get", "appendonly").splitlines() == ["appendonly", "yes"]


def test_both_servers_keep_their_tables_in_postgresql(stack: Stack) -> None:
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    found = {
        database: set(sql(stack.site, role, database, tables).stdout.split())
        for role, database in (("prefect", "prefect"), ("mlflow", "mlflow"), ("mlflow", "mlflow_auth"))
    }
    assert {"flow_run", "events", "concurrency_limit_v2"} <= found["prefect"]
    assert {"runs", "model_versions", "webhooks"} <= found["mlflow"]
    assert "users" in found["mlflow_auth"]
    assert "users" not in found["mlflow"]


def test_prefect_asks_for_its_password(stack: Stack) -> None:
    url = f"{stack.prefect}/api/work_pools/filter"
    assert ask(url, body={})[0] == 401
    assert ask(url, "admin:wrong", {})[0] == 401
    assert ask(url, PREFECT_USER, {})[0] == 200


def test_prefects_ui_is_served_and_asks_this_server(stack: Stack) -> None:
    status, page = ask(f"{stack.prefect}/", host="")
    assert (status, "<html" in page) == (200, True)
    settings = ask(f"{stack.prefect}/ui-settings")[1]
    assert (settings["api_url"], settings["auth"], settings["default_ui"]) == ("/api", "BASIC", "v1")


def test_mlflow_asks_for_its_password_and_answers_its_own_hosts_only(stack: Stack) -> None:
    url = f"{stack.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert ask(url)[0] == 401
    assert ask(url, "admin:wrong")[0] == 401
    assert ask(url, MLFLOW_USER)[0] == 200
    assert ask(url, MLFLOW_USER, host="mlflow:5000")[0] == 200
    assert ask(url, MLFLOW_USER, host="evil.example.org")[0] == 403


def test_mlflow_keeps_artifacts_itself(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRETS["MLFLOW_ADMIN_PASSWORD"])
    from mlflow import MlflowClient

    client = MlflowClient(stack.mlflow)
    run = client.create_run(client.create_experiment("artifacts"))
    client.log_text(run.info.run_id, "kept", "note.txt")
    kept = list(Path(stack.site.environment("mlflow")["MLFLOW_ARTIFACTS_DESTINATION"]).rglob("note.txt"))
    assert [path.read_text("utf-8") for path in kept] == ["kept"]
    fetched = client.download_artifacts(run.info.run_id, "note.txt", str(tmp_path))
    assert Path(fetched).read_text("utf-8") == "kept"


def test_mlflow_accepts_a_webhook_to_a_neighbour_and_encrypts_its_secret(stack: Stack) -> None:
    body = {
        "name": "registry",
        "url": "http://127.0.0.1:5055/",
        "secret": SECRETS["WEBHOOK_SECRET"],
        "events": [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}],
    }
    status, made = ask(f"{stack.mlflow}/api/2.0/mlflow/webhooks", MLFLOW_USER, body)
    assert status == 200, made
    stored = sql(stack.site, "mlflow", "mlflow", "SELECT secret FROM webhooks").stdout
    assert stored.strip()
    assert SECRETS["WEBHOOK_SECRET"] not in stored


def test_a_flow_runs_events_arrive_by_way_of_redis(stack: Stack) -> None:
    flow = ask(f"{stack.prefect}/api/flows/", PREFECT_USER, {"name": "trivial"})[1]
    body = {"flow_id": flow["id"], "state": {"type": "PENDING"}}
    run = ask(f"{stack.prefect}/api/flow_runs/", PREFECT_USER, body)[1]
    for state in ("RUNNING", "COMPLETED"):
        moved = ask(f"{stack.prefect}/api/flow_runs/{run['id']}/set_state", PREFECT_USER, {"state": {"type": state}})
        assert moved[0] in {200, 201}, moved
    resource = f"prefect.flow-run.{run['id']}"
    query = {"filter": {"any_resource": {"id": [resource]}}}

    def arrived() -> set[str]:
        found = ask(f"{stack.prefect}/api/events/filter", PREFECT_USER, query)[1]["events"]
        return {event["event"].rpartition(".")[2] for event in found}

    wait_until(lambda: arrived() >= {"Pending", "Running", "Completed"}, "the run's events")
    assert int(redis(stack.site, "xlen", "events")) > 0
    assert "event-persister" in redis(stack.site, "xinfo", "groups", "events")


def test_a_gpu_slot_outlives_a_restart_of_the_prefect_server(site: Site, tmp_path: Path) -> None:
    beside = site.with_another_port("prefect")
    limit = f"gpu-{uuid4().hex[:8]}"
    with server(beside, "prefect", tmp_path / "prefect.log") as address:
        stack = Stack(beside, address, "")
        made = ask(f"{address}/api/v2/concurrency_limits/", PREFECT_USER, {"name": limit, "limit": 1, "active": True})
        assert made[0] == 201, made
        status, taken = take_slot(stack, limit)
        assert status == 200, taken
        assert take_slot(stack, limit)[0] == 423
    with server(beside, "prefect", tmp_path / "prefect.log"):
        time.sleep(2)  # the service that takes back slots without a lease has had its chance
        assert slots(stack, limit) == 1
        assert take_slot(stack, limit)[0] == 423
        lease = taken["lease_id"]
        body = {"lease_duration": LEASE}
        renewed = ask(f"{address}/api/v2/concurrency_limits/leases/{lease}/renew", PREFECT_USER, body)
        assert renewed[0] == 204, renewed
        given = ask(f"{address}/api/v2/concurrency_limits/decrement-with-lease", PREFECT_USER, {"lease_id": lease})
        assert given[0] == 204, given
        assert slots(stack, limit) == 0
        assert take_slot(stack, limit)[0] == 200
