"""The Prefect server that a command uses: that of `PREFECT_API_URL`, else a temporary one on loopback."""

import atexit
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path

from alignment.errors import StoreError
from alignment.locks import alone
from flows.stack import prefect_api
from flows.stack.processes import LOOPBACK, free_port, start, stop, wait_for_answer
from tasks.home import DEFAULTS

READY_WITHIN = 120.0  # seconds; a loaded machine needs most of a minute for the imports
STOPPED_WITHIN = 5.0  # seconds
OTHER_SERVERS = (  # variables that would point a process of ours at another server
    *("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"),
    *("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_BACKEND_STORE_URI"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
)
SERVER_PREFIXES = ("PREFECT_SERVER_", "PREFECT_MESSAGING_", "PREFECT_REDIS_", "_MLFLOW_SERVER_", "MLFLOW_SERVER_")


def prefect_command(port: int, log_level: str = "error") -> list[str]:
    """The command that runs Prefect's server as one process; `prefect server start` would make two."""
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", "flows.stack.prefect_app:create_app"),
        *("--host", LOOPBACK, "--port", str(port), "--log-level", log_level, "--lifespan", "on"),
    ]


def database_lock(folder: Path) -> AbstractContextManager[None]:
    """A lock while this release of Prefect has not made its database in `folder`, so that one process makes it."""
    if _mark(folder).exists() and (folder / "prefect.db").exists():
        return nullcontext()
    return alone(folder / ".prefect.db.lock", "another process makes Prefect's database", level=logging.WARNING)


def mark_database_made(folder: Path) -> None:
    """Note that a server of this release of Prefect has answered, and so has made its database."""
    _mark(folder).touch()


def server_environment() -> dict[str, str]:
    """The environment for servers that we start, without the variables that would point them at other servers."""
    return {name: value for name, value in os.environ.items() if name in DEFAULTS or not _names_a_server(name)}


@contextmanager
def prefect_server(home: Path) -> Iterator[Callable[[], None]]:
    """Use or start a server; yields a function that waits until it answers. Each failure becomes one StackError.

    A temporary server has its database in `home`/prefect. Enter this before Prefect is imported: the address is in the
    environment at once, so that the imports run while the server starts (Prefect's own temporary server is imported
    into this process first). It is stopped at exit, after Prefect has sent its last log lines.
    """
    url = os.environ.get("PREFECT_API_URL")
    if url:
        prefect_api.require_address(url)
        with prefect_api.guard():
            yield prefect_api.check
        return
    folder = Path(os.environ.get("PREFECT_HOME") or home / "prefect")
    log = home / "prefect" / "server.log"
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
    with ExitStack() as starting:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            starting.enter_context(database_lock(folder))
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_bytes(b"")
        except OSError as error:
            raise StoreError(
                f"{error.filename or folder}: {error.strerror}; point PLUMBLINE_HOME at a folder that you may write"
            ) from error
        port = free_port()
        process = start(prefect_command(port), server_environment() | own, log)
        os.environ["PREFECT_API_URL"] = f"http://{LOOPBACK}:{port}/api"
        atexit.register(stop, process, STOPPED_WITHIN)

        def ready() -> None:
            wait_for_answer(process, "Prefect's server", f"http://{LOOPBACK}:{port}/api/health", log, READY_WITHIN)
            mark_database_made(folder)
            starting.close()

        with prefect_api.guard(log):
            yield ready


def _names_a_server(name: str) -> bool:
    return name in OTHER_SERVERS or name.startswith(SERVER_PREFIXES)


def _mark(folder: Path) -> Path:
    return folder / f".made-by-{version('prefect')}"
