"""The webhook receiver: what it refuses, and what it does on a message that it accepts."""

import json
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from alignment.config import PromotionConfig
from alignment.errors import ConfigError, TrackingError
from flows.stack.receiver import create_app
from tasks.home import home as tasks_home
from tasks.registry import webhook

SECRET = b"a secret of more than 16 characters"
NOW = 1_800_000_000.0
POLICY = PromotionConfig()


class Receiver:
    """The app, the models that it checked, and the messages that MLflow would send."""

    def __init__(self) -> None:
        self.checked: list[str] = []
        self.trouble: Exception | None = None
        self.now = NOW
        self.client = self.start()

    def start(self) -> TestClient:
        """A receiver as after a start of its process."""
        return TestClient(create_app(SECRET, POLICY, reconcile=self.look, now=lambda: self.now))

    def look(self, name: str, policy: PromotionConfig) -> str:
        assert policy == POLICY
        if self.trouble is not None:
            raise self.trouble
        self.checked.append(name)
        return "promoted"

    def post(self, body: bytes, headers: dict[str, str]) -> int:
        return int(self.client.post("/webhook", content=body, headers=headers).status_code)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def message(
    name: str = "film", alias: str = "champion", entity: str = "model_version_alias", action: str = "created"
) -> bytes:
    data = {"name": name, "alias": alias, "version": "2"}
    return json.dumps({"entity": entity, "action": action, "timestamp": "now", "data": data}).encode()


def headers(body: bytes, *, secret: bytes = SECRET, at: float = NOW, delivery: str | None = None) -> dict[str, str]:
    delivery = delivery or str(uuid.uuid4())
    return {
        "Content-Type": "application/json",
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": str(int(at)),
        "X-MLflow-Signature": webhook.sign(secret, delivery, str(int(at)), body),
    }


def test_a_signed_message_about_a_champion_has_its_model_checked(receiver: Receiver) -> None:
    body = message()
    answer = receiver.client.post("/webhook", content=body, headers=headers(body))
    assert (answer.status_code, answer.json()) == (200, {"result": "promoted"})
    assert receiver.checked == ["film"]


def test_the_signature_is_mlflow_s_own() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    body = message(name="fílm")
    theirs = _generate_hmac_signature(SECRET.decode(), "an id", "1800000000", body.decode())
    assert webhook.sign(SECRET, "an id", "1800000000", body) == theirs


def test_it_says_that_it_lives(receiver: Receiver) -> None:
    assert receiver.client.get("/health").json() == {"status": "ok"}


def without(name: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda given: {key: value for key, value in given.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        without("X-MLflow-Signature"),
        without("X-MLflow-Delivery-Id"),
        without("X-MLflow-Timestamp"),
        lambda given: given | {"X-MLflow-Delivery-Id": "another"},
        lambda given: given | {"X-MLflow-Timestamp": str(int(NOW) + 1)},
        lambda given: given | {"X-MLflow-Signature": given["X-MLflow-Signature"].removeprefix("v1,")},
        lambda given: given | {"X-MLflow-Signature": "v1,"},
    ],
    ids=["unsigned", "no-id", "no-time", "another-id", "another-time", "no-version", "empty"],
)
def test_a_forged_message_is_401(receiver: Receiver, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    body = message()
    given = headers(body)
    assert receiver.post(body, change(given)) == 401
    assert receiver.checked == []
    assert receiver.post(body, given) == 200


def test_a_message_signed_with_another_secret_or_with_another_body_is_401(receiver: Receiver) -> None:
    body = message()
    assert receiver.post(body, headers(body, secret=b"another secret than the right one")) == 401
    assert receiver.post(message(name="other"), headers(body)) == 401
    assert receiver.checked == []


@pytest.mark.parametrize(
    ("seconds", "status"), [(-301, 401), (-299, 200), (299, 200), (301, 401)], ids=["old", "late", "early", "future"]
)
def test_a_message_of_another_time_is_401(receiver: Receiver, seconds: int, status: int) -> None:
    body = message()
    assert receiver.post(body, headers(body, at=NOW + seconds)) == status
    assert receiver.checked == (["film"] if status == 200 else [])


def test_a_time_that_is_none_is_401(receiver: Receiver) -> None:
    body = message()
    for timestamp in ("soon", "-1", "1.8e9", "²"):
        given = headers(body) | {"X-MLflow-Timestamp": timestamp}
        given["X-MLflow-Signature"] = webhook.sign(SECRET, given["X-MLflow-Delivery-Id"], timestamp, body)
        assert receiver.post(body, {key: value.encode("latin-1") for key, value in given.items()}) == 401  # type: ignore[misc]
    assert receiver.checked == []


def test_a_replayed_message_is_409_also_after_a_restart(receiver: Receiver) -> None:
    body = message()
    given = headers(body)
    assert receiver.post(body, given) == 200
    assert receiver.post(body, given) == 409
    receiver.client = receiver.start()
    assert receiver.post(body, given) == 409
    assert receiver.checked == ["film"]


def test_ids_are_forgotten_once_their_time_is_refused_anyway(receiver: Receiver) -> None:
    first, second = message(name="first"), message(name="second")
    old = headers(first)
    assert receiver.post(first, old) == 200
    receiver.now = NOW + webhook.WINDOW + 1
    assert receiver.post(second, headers(second, at=receiver.now)) == 200
    [file] = tasks_home().rglob("deliveries.json")
    assert len(json.loads(file.read_text(encoding="utf-8"))) == 1
    assert receiver.post(first, old) == 401


def test_a_message_that_could_not_be_acted_on_may_come_again(receiver: Receiver) -> None:
    body = message()
    given = headers(body)
    receiver.trouble = TrackingError("MLflow at http://user@host: connection refused")
    answer = receiver.client.post("/webhook", content=body, headers=given)
    assert answer.status_code == 503
    assert "host" not in answer.text
    receiver.trouble = None
    assert receiver.post(body, given) == 200
    assert receiver.checked == ["film"]


def test_an_oversized_message_is_413(receiver: Receiver) -> None:
    body = b" " * (webhook.MAX_BODY + 1)
    assert receiver.post(body, headers(body)) == 413
    largest = message().ljust(webhook.MAX_BODY)
    assert receiver.post(largest, headers(largest)) == 200


def test_an_oversized_message_of_unknown_length_is_413(receiver: Receiver) -> None:
    chunks = (b" " * 32_768 for _ in range(3))
    assert receiver.client.post("/webhook", content=chunks, headers=headers(b"")).status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        message(alias="challenger"),
        message(action="deleted"),
        message(entity="model_version"),
        json.dumps({"entity": "prompt", "action": "created", "data": {"name": "x"}}).encode(),
    ],
    ids=["another-alias", "deleted", "another-entity", "a-prompt"],
)
def test_other_events_are_ignored(receiver: Receiver, body: bytes) -> None:
    answer = receiver.client.post("/webhook", content=body, headers=headers(body))
    assert (answer.status_code, answer.json()) == (200, {"result": "ignored"})
    assert receiver.checked == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"entity": "x"}', b"\xff"])
def test_what_is_no_event_is_400(receiver: Receiver, body: bytes) -> None:
    assert receiver.post(body, headers(body)) == 400


def test_two_deliveries_of_one_message_at_once_are_acted_on_once(receiver: Receiver) -> None:
    body = message()
    given = headers(body)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(receiver.post(body, given))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200, 409, 409, 409]
    assert receiver.checked == ["film"]


def test_neither_the_secret_nor_the_message_is_logged(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    body = message(name="a private name")
    caplog.set_level(0)
    given = headers(body)
    receiver.post(body, given)
    receiver.post(body, given | {"X-MLflow-Signature": "v1,x"})
    receiver.post(body, given)
    for told in (SECRET.decode(), given["X-MLflow-Signature"], "a private name"):
        assert told not in caplog.text
    assert "signed with another secret" in caplog.text


def test_at_its_start_it_checks_every_known_model() -> None:
    checked: list[str] = []
    both = threading.Event()

    def look(name: str, _: PromotionConfig) -> str:
        checked.append(name)
        if len(checked) == 2:
            both.set()
        return "nothing"

    with TestClient(create_app(SECRET, POLICY, reconcile=look, known=lambda: ["film", "book"])):
        assert both.wait(10)
    assert checked == ["film", "book"]


def test_an_unreachable_mlflow_at_its_start_does_not_stop_it(caplog: pytest.LogCaptureFixture) -> None:
    tried = threading.Event()

    def known() -> list[str]:
        tried.set()
        raise TrackingError("MLflow is unreachable")

    with TestClient(create_app(SECRET, POLICY, known=known)) as client:
        assert tried.wait(10)
        assert client.get("/health").status_code == 200


# The secret


def secret_file(home: Path, text: str, mode: int) -> None:
    file = home / "stack" / "secret" / "webhook"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path))
    monkeypatch.setenv(webhook.SECRET_VARIABLE, "")
    return tmp_path


def test_the_secret_comes_from_the_environment_or_from_a_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret_file(home, "a secret in a file\n", 0o600)
    assert webhook.read_secret() == b"a secret in a file"
    monkeypatch.setenv(webhook.SECRET_VARIABLE, "one in the environment")
    assert webhook.read_secret() == b"one in the environment"


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (None, 0o600, "No such file"),
        ("fifteen letters", 0o600, "15 characters; take a random one of at least 16"),
        ("", 0o600, "0 characters"),
        ("long enough for it", 0o640, "others may read it"),
        ("long enough for it", 0o604, "others may read it"),
    ],
    ids=["missing", "short", "empty", "group", "world"],
)
def test_a_secret_that_is_missing_weak_or_open_is_refused(home: Path, text: Any, mode: int, reason: str) -> None:
    if text is not None:
        secret_file(home, text, mode)
    with pytest.raises(ConfigError, match=reason) as raised:
        webhook.read_secret()
    assert not text or text not in str(raised.value)


def test_prometheus_reads_what_was_asked_what_came_of_it_and_what_the_runs_of_the_home_did(receiver: Receiver) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    from tasks.metering import count

    count("samples", computed=2, seconds=12.5)
    accepted = message()
    assert receiver.post(accepted, headers(accepted)) == 200
    assert receiver.post(accepted, headers(accepted, secret=b"another secret of 16 characters")) == 401
    answer = receiver.client.get("/metrics")
    assert answer.status_code == 200
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert found == {
        ("plumbline_webhook_requests_total", "200"): 1,
        ("plumbline_webhook_requests_total", "401"): 1,
        ("plumbline_champion_checks_total", "promoted"): 1,
        ("plumbline_stage_computed_total", "samples"): 2,
        ("plumbline_stage_seconds_total", "samples"): 12.5,
    }
