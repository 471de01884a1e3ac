"""Prefect events about registered models: their names, and sending one without failing if Prefect is unreachable."""

from threading import Thread
from typing import Any

from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

from tasks.running import run_logger

CHAMPION_CHANGED = "plumbline.champion.changed"
PROMOTION_REVERTED = "plumbline.promotion.reverted"
DATA_ARRIVED = "plumbline.data.arrived"

SENT_WITHIN = 10.0  # seconds


def emit(event: str, name: str, payload: dict[str, Any]) -> None:
    """Send an event about the model `name` and wait until it is sent; if it cannot be, log a warning."""
    if not PREFECT_API_URL.value():
        run_logger().warning("%s of %s is not sent: PREFECT_API_URL is not set", event, name)
        return
    emit_event(event, resource=_resource(name), payload={"model_name": name, **payload})
    waiting = Thread(target=_flush, daemon=True)
    waiting.start()
    waiting.join(SENT_WITHIN)
    if waiting.is_alive():
        run_logger().warning("%s of %s was not sent within %.0f s: Prefect is unreachable", event, name, SENT_WITHIN)


def _resource(name: str) -> dict[str, str]:
    return {"prefect.resource.id": f"plumbline.model.{name}", "prefect.resource.name": name}


def _flush() -> None:
    from prefect.events.worker import EventsWorker

    EventsWorker.instance().wait_until_empty()
