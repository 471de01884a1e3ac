"""What `plumbline status` shows of a running stack, and how `plumbline down` stops it."""

import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.cli.console import BAD, NOTE
from flows.stack.activity import Row, read_activity, run_rows, schedule_rows, utc_now
from flows.stack.clients import STOPS_WITHIN, stop_clients
from flows.stack.pages import deployments_page
from flows.stack.processes import answers, call, end_marked, send
from flows.stack.services import POOL, STOPPED_WITHIN, WORKER, stack_file
from flows.stack.state import LOOK_EVERY, running
from flows.stack.telling import Screen
from tasks.home import SILENT_AFTER
from tasks.registry import pages


def status(home: Path, console: Console) -> int:
    """Print how each process fares, what runs, what waits for a person, and the schedules; returns 0 if all is well."""
    state = running(home)
    if state is None:
        console.print(f"not up in {home}; `plumbline up` starts it", highlight=False, soft_wrap=True)
        return 1
    screen = Screen(console)
    healthy = {name: answers(url) for name, url in state.health.items()}
    age = last_heartbeat(state.prefect) if healthy["prefect"] else None
    healthy["worker"] = age is not None and age < SILENT_AFTER
    notes = {
        "prefect": deployments_page(state.prefect),
        "mlflow": pages.experiments_page(state.mlflow),
        "receiver": state.receiver,
        "worker": "no heartbeat" if age is None else f"last heartbeat {age:.0f} s ago",
    }
    for name, note in notes.items():
        screen.row(Row(name, f"{'healthy' if healthy[name] else 'no answer':<10} {note}"), "" if healthy[name] else BAD)
    if healthy["prefect"]:
        try:
            found = read_activity(state.prefect)
        except OSError:
            screen.row(Row("runs", "Prefect is busy and did not tell in time; ask again"), NOTE)
        else:
            for row in (*run_rows(found, state.prefect, utc_now()), *schedule_rows(found)):
                screen.row(row)
    screen.row(Row("logs", str(stack_file(home, "log"))))
    return 0 if all(healthy.values()) else 1


def down(home: Path, console: Console) -> int:
    """Stop the stack of this home, whichever terminal it was started in; returns 0, also if none is running."""
    state = running(home)
    if state is None:
        left = end_marked(home) + stop_clients(home, STOPS_WITHIN)
        console.print(f"not up{f'; ended {left} processes that were left of it' if left else ''}", highlight=False)
        return 0
    send(state.pid, signal.SIGTERM)
    ends = time.monotonic() + sum(STOPPED_WITHIN.values()) + 10
    while running(home) is not None:
        if time.monotonic() > ends:
            send(state.pid, signal.SIGKILL)
        time.sleep(LOOK_EVERY)
    end_marked(home)
    stop_clients(home, STOPS_WITHIN)
    console.print("stopped", highlight=False)
    return 0


def last_heartbeat(prefect: str) -> float | None:
    """Seconds since the last heartbeat of the stack's worker; None if there was none, or Prefect does not answer."""
    try:
        workers: list[dict[str, Any]] = call("POST", f"{prefect}/api/work_pools/{POOL}/workers/filter", {})
    except OSError:
        return None
    beats = [datetime.fromisoformat(worker["last_heartbeat_time"]) for worker in workers if worker["name"] == WORKER]
    return max(0.0, (datetime.now(UTC) - max(beats)).total_seconds()) if beats else None
