"""Prefect events about registered models: their names, and sending one without failing if Prefect is unreachable.

| event | when | payload beside `model_name` |
|---|---|---|
| `APPROVAL_WAITING` | a promotion begins to wait for a person | `version` |
| `APPROVAL_REMINDED` | it still waits, `remind_hours` later | `version` |
| `CHAMPION_CHANGED` | a promotion, a rollback, an alias moved by hand that stays | `version`, `previous`, `how` |
| `PROMOTION_REJECTED` | a person, or nobody in time, said no | `version`, `reason` |
| `PROMOTION_REVERTED` | an alias moved by hand was moved back | `version`, `champion`, `reason` |
| `RUN_REFUSED` | the gates refused what a run trained | `reason` |
| `MODEL_DRIFTED` | the same, where a gate that measures drift from the anchor failed | `reason` |
| `DATA_ARRIVED` | the data at `data.path` has grown | |
| `NOTIFICATION_TEST` | a person asked for a test message | |

Each but `DATA_ARRIVED` also has the `title`, `text` and `link` that a notification shows (`tasks.notices`). Runs that
fail and runs that are late are told of by Prefect's own events, with the tag `plumbline`.
"""

from collections.abc import Mapping
from threading import Thread
from typing import Any

from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

from tasks.run_log import run_logger

APPROVAL_WAITING = "plumbline.approval.waiting"
APPROVAL_REMINDED = "plumbline.approval.reminded"
CHAMPION_CHANGED = "plumbline.champion.changed"
PROMOTION_REJECTED = "plumbline.promotion.rejected"
PROMOTION_REVERTED = "plumbline.promotion.reverted"
RUN_REFUSED = "plumbline.run.refused"
MODEL_DRIFTED = "plumbline.model.drifted"
DATA_ARRIVED = "plumbline.data.arrived"
NOTIFICATION_TEST = "plumbline.notification.test"

SENT_WITHIN = 10.0  # seconds


def emit(event: str, name: str, payload: Mapping[str, Any]) -> None:
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
