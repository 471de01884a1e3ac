"""A real MLflow server and a real receiver: an alias set as MLflow's page sets it, and forged calls."""

import json
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.stack.processes import answers
from tasks.registry import connection, runs, versions, webhook
from tasks.registry.aliases import Aliases, read_aliases
from tests.registered import make_version, report
from tests.stack.processes import process, quiet_ports, wait_until

pytestmark = pytest.mark.stack

SECRET = "a secret for this test alone"
WITHIN = 20.0  # seconds from the moved alias to what was made of it


@dataclass(frozen=True)
class Place:
    """Where MLflow and the receiver answer."""

    mlflow: str
    receiver: str
    log: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Both as processes, and MLflow's webhook to the receiver."""
    home = tmp_path_factory.mktemp("home")
    ports = quiet_ports(2)
    mlflow, receiver = (f"http://127.0.0.1:{port}" for port in ports)
    env = os.environ | {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "https,http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": urlsafe_b64encode(os.urandom(32)).decode(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(ports[0]),
        "--workers",
        "1",
    ]
    stores = ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(home / "artifacts")]
    ours = os.environ | {
        "PLUMBLINE_HOME": str(home),
        "MLFLOW_TRACKING_URI": mlflow,
        webhook.SECRET_VARIABLE: SECRET,
        "PREFECT_HOME": str(home / "prefect"),
    }
    log = home / "receiver.log"
    serve = "from flows.stack.receiver import serve; from alignment.config import PromotionConfig; "
    serve += f"serve('127.0.0.1', {ports[1]}, PromotionConfig())"
    with (
        process([*command, *stores], env, home / "mlflow.log") as server,
        process([sys.executable, "-c", serve], ours, log) as listener,
    ):
        wait_until(lambda: answers(f"{mlflow}/health"), "MLflow", server, home / "mlflow.log")
        wait_until(lambda: answers(f"{receiver}/health"), "the receiver", listener, log)
        before = connection._place
        runs.configure(mlflow)
        connection.client().create_webhook(
            name="promotion", url=f"{receiver}/webhook", events=["model_version_alias.created"], secret=SECRET
        )
        yield Place(mlflow, receiver, log)
        connection._place = before


def aliases_within(name: str, wanted: Aliases) -> float:
    """Seconds until the aliases are as wanted."""
    started = time.monotonic()
    while time.monotonic() - started < WITHIN:
        if read_aliases(name) == wanted:
            return time.monotonic() - started
        time.sleep(0.1)
    pytest.fail(f"{name} has {read_aliases(name)}, not {wanted}, after {WITHIN:.0f} s")


def tags_within(name: str, version: str, decision: str) -> dict[str, str]:
    ends = time.monotonic() + WITHIN
    while time.monotonic() < ends:
        tags = dict(versions.get_version(name, version).tags)
        if tags.get("promotion.decision") == decision:
            return tags
        time.sleep(0.1)
    pytest.fail(f"version {version} was not {decision}: {tags}")


def test_an_alias_moved_by_hand_is_taken_over_or_moved_back(place: Place, figures: Any) -> None:
    """As in MLflow's page: good, another good one, then one that failed, then one that no run judged."""
    name = "film"
    for _ in range(2):
        make_version(name)
    failed = make_version(name, found=report(kl_per_token=0.31), alias="tried")
    unknown = make_version(name, record=False, alias="unknown")

    versions.set_alias(name, "champion", "1")
    seconds = aliases_within(name, Aliases("1", None, "2", "1"))
    figures("champion set by hand, passed", seconds, "nothing")
    versions.set_alias(name, "champion", "2")
    aliases_within(name, Aliases("2", "1", None, "2"))
    tags = tags_within(name, "2", "promoted")
    assert (tags["promotion.approver"], tags["promotion.previous"]) == ("by hand in MLflow", "1")

    for version, reason in ((failed, "kl_per_token"), (unknown, "no readable record")):
        versions.set_alias(name, "champion", version.version)
        tags = tags_within(name, version.version, "reverted")
        figures(f"champion set by hand, {reason}", aliases_within(name, Aliases("2", "1", None, "2")), "nothing")
        assert reason in tags["promotion.reason"]


def test_an_alias_of_another_name_moves_nothing(place: Place) -> None:
    name = "book"
    make_version(name)
    versions.set_alias(name, "staging", "1")
    versions.set_alias(name, "champion", "1")
    aliases_within(name, Aliases("1", None, None, "1"))
    assert set(versions.get_version(name, "1").aliases) == {"champion", "staging"}


def test_mlflow_s_own_test_of_the_webhook_succeeds(place: Place) -> None:
    [hook] = connection.client().list_webhooks()
    assert connection.client().test_webhook(hook.webhook_id).success


def post(place: Place, body: bytes, headers: dict[str, str]) -> int:
    request = urllib.request.Request(f"{place.receiver}/webhook", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def signed(body: bytes, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    timestamp = str(int(time.time() if at is None else at))
    return {
        "Content-Type": "application/json",
        webhook.DELIVERY: "a delivery",
        webhook.TIMESTAMP: timestamp,
        webhook.SIGNATURE: webhook.sign(secret.encode(), "a delivery", timestamp, body),
    }


def test_forged_stale_replayed_and_oversized_calls_are_refused(place: Place) -> None:
    about = {"name": "film", "alias": "champion", "version": "1"}
    body = json.dumps({"entity": "model_version_alias", "action": "created", "data": about}).encode()
    assert post(place, body, {"Content-Type": "application/json"}) == 401
    assert post(place, body, signed(body, "a guess at the secret")) == 401
    assert post(place, body, signed(body, at=time.time() - 400)) == 401
    given = signed(body)
    assert post(place, body, given) == 200
    assert post(place, body, given) == 409
    large = b" " * (webhook.MAX_BODY + 1)
    assert post(place, large, signed(large)) == 413
    assert SECRET not in place.log.read_text(encoding="utf-8")


def test_a_body_without_end_is_cut_off(place: Place) -> None:
    """Sent in chunks that never end: the answer comes while it is still being sent."""
    host, port = place.receiver.removeprefix("http://").split(":")
    head = f"POST /webhook HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as link:
        link.sendall(head + 3 * chunk)
        assert link.recv(1_000).startswith(b"HTTP/1.1 413")


def test_many_calls_at_once_leave_it_answering(place: Place) -> None:
    body = b" " * 60_000
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(post(place, body, signed(body, "a guess at the secret"))))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [401] * 20
    assert answers(f"{place.receiver}/health")
