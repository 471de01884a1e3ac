"""Events that tell Prefect what happened to a registered model; that Prefect is away never undoes what happened."""

from threading import Thread
from typing import Any

from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

from tasks.events import model_resource
from tasks.running import run_logger

SENT_WITHIN = 10.0  # seconds


def announce(event: str, name: str, payload: dict[str, Any]) -> None:
    """Emit an event about the model `name`, and wait until it is sent; where it cannot be, say so in the log."""
    if not PREFECT_API_URL.value():
        run_logger().warning("PREFECT_API_URL is not set, so nobody hears %s of %s", event, name)
        return
    emit_event(event, resource=model_resource(name), payload={"model_name": name, **payload})
    waiting = Thread(target=_flush, daemon=True)
    waiting.start()
    waiting.join(SENT_WITHIN)
    if waiting.is_alive():
        run_logger().warning("%s of %s was not sent within %.0f s: Prefect is away", event, name, SENT_WITHIN)


def _flush() -> None:
    from prefect.events.worker import EventsWorker

    EventsWorker.instance().wait_until_empty()
