"""What `plumbline status` shows of a running stack, and how `plumbline down` stops it."""

import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from flows.stack.clients import STOPS_WITHIN, stop_clients
from flows.stack.processes import answers, call, end_marked, send
from flows.stack.services import POOL, STOPPED_WITHIN, WORKER
from flows.stack.state import LOOK_EVERY, running
from tasks.home import SILENT_AFTER

RUNNING = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}


def status(home: Path, console: Console) -> int:
    """Print each server with its address and health, and the worker's last heartbeat; returns 0 if all are well."""
    state = running(home)
    if state is None:
        console.print(f"not up in {home}; `plumbline up` starts it", highlight=False, soft_wrap=True)
        return 1
    healthy = {name: answers(url) for name, url in state.health.items()}
    age = last_heartbeat(state.prefect) if healthy["prefect"] else None
    runs = call("POST", f"{state.prefect}/api/flow_runs/count", RUNNING) if healthy["prefect"] else "?"
    healthy["worker"] = age is not None and age < SILENT_AFTER
    heartbeat = "no heartbeat" if age is None else f"last heartbeat {age:.0f} s ago"
    notes = {"prefect": state.prefect, "mlflow": state.mlflow, "receiver": state.receiver}
    notes["worker"] = f"{heartbeat}, runs at work: {runs}"
    for name, note in notes.items():
        word = "[green]healthy  [/green]" if healthy[name] else "[red]no answer[/red]"
        console.print(f"{name:<9} {word}  {note}", highlight=False, soft_wrap=True)
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
