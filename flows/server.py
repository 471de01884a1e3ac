"""A Prefect server of a run's own, on loopback and for as long as the run lasts, where `PREFECT_API_URL` names none."""

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from alignment.errors import PlumblineError

READY_WITHIN = 120.0  # seconds; a loaded machine needs most of a minute for the imports
STOPPED_WITHIN = 5.0  # seconds

PR_SET_PDEATHSIG = 1


def start_local_server(home: Path) -> Callable[[], None]:
    """Start a server whose database is in `home`/prefect; returns a function that waits until it answers.

    Call it before Prefect is imported: its address is in the environment at once, so that the imports and the start of
    the server overlap (Prefect's own temporary server is imported into this process first), and it is stopped at exit
    after Prefect has sent its last log lines.
    """
    if os.environ.get("PREFECT_API_URL"):
        return lambda: None
    port = _free_port()
    folder = home / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [
                *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
                *("--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"),
            ],
            env=os.environ | own,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    atexit.register(_stop, process)
    return lambda: _wait(process, port, log)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    ends = time.monotonic() + READY_WITHIN
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise PlumblineError(f"Prefect's server ended with code {process.returncode} at its start; see {log}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            pass
        time.sleep(0.1)
    raise PlumblineError(f"Prefect's server did not answer within {READY_WITHIN:.0f} s; see {log}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _die_with_parent() -> None:
    """In the child on Linux: a run that is killed with -9 leaves no server behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
