"""A Prefect server of a run's own, on loopback and for as long as the run lasts, where `PREFECT_API_URL` names none."""

import atexit
import os
import sys
from collections.abc import Callable
from pathlib import Path

from flows.processes import LOOPBACK, free_port, start, stop, wait_for_answer

READY_WITHIN = 120.0  # seconds; a loaded machine needs most of a minute for the imports
STOPPED_WITHIN = 5.0  # seconds


def prefect_command(port: int, log_level: str = "error") -> list[str]:
    """Prefect's server as one process, without the command line's wrapper around it."""
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", "flows.prefect_app:create_app"),
        *("--host", LOOPBACK, "--port", str(port), "--log-level", log_level, "--lifespan", "on"),
    ]


def start_local_server(home: Path) -> Callable[[], None]:
    """Start a server whose database is in `home`/prefect; returns a function that waits until it answers.

    Call it before Prefect is imported: its address is in the environment at once, so that the imports and the start of
    the server overlap (Prefect's own temporary server is imported into this process first), and it is stopped at exit
    after Prefect has sent its last log lines.
    """
    if os.environ.get("PREFECT_API_URL"):
        return lambda: None
    port = free_port()
    log = home / "prefect" / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    process = start(prefect_command(port), os.environ | own, log)
    os.environ["PREFECT_API_URL"] = f"http://{LOOPBACK}:{port}/api"
    atexit.register(stop, process, STOPPED_WITHIN)
    health = f"http://{LOOPBACK}:{port}/api/health"
    return lambda: wait_for_answer(process, "Prefect's server", health, log, READY_WITHIN)
