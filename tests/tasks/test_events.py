"""An event is sent to Prefect, and one that cannot be sent holds nobody up."""

import threading
from typing import Any

import pytest

from tasks import events
from tasks.events import CHAMPION_CHANGED
from tasks.registry import promotion


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The events that were emitted."""
    events: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(promotion, "emit", lambda event, _, payload: events.append((event, payload)))
    return events


def test_without_a_prefect_an_event_is_not_sent_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(events, "emit_event", lambda *_, **__: pytest.fail("there is no Prefect"))
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        events.emit(CHAMPION_CHANGED, "film", {})
    assert f"{CHAMPION_CHANGED} of film is not sent" in caplog.text


def test_an_unreachable_prefect_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    emitted: list[Any] = []
    unreachable = threading.Event()
    monkeypatch.setattr(events, "emit_event", lambda event, **given: emitted.append((event, given)))
    monkeypatch.setattr(events, "_flush", unreachable.wait)
    monkeypatch.setattr(events, "SENT_WITHIN", 0.1)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        events.emit(CHAMPION_CHANGED, "film", {"version": "2"})
    unreachable.set()
    [(event, given)] = emitted
    assert event == CHAMPION_CHANGED
    assert given["resource"]["prefect.resource.id"] == "plumbline.model.film"
    assert given["payload"] == {"model_name": "film", "version": "2"}
    assert "Prefect is unreachable" in caplog.text
