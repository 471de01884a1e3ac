"""The processes of a stack on one machine: each with its command, environment, port and log."""

import os
import secrets
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from alignment.errors import ConfigError
from flows.stack.logs import FORMATS, Log
from flows.stack.prefect_server import prefect_command, server_environment
from flows.stack.processes import LOOPBACK, MARK, answers, free_port, start, wait_for_answer
from tasks.addresses import sqlite_uri
from tasks.home import HEARTBEAT
from tasks.proxies import spare_loopback

POOL = WORKER = "local"
NOTIFY_URL = "PLUMBLINE_NOTIFY_URL"  # a secret: of all processes, the bootstrap alone gets it
STOPPED_WITHIN = {"runs": 30.0, "worker": 5.0, "receiver": 5.0, "mlflow": 5.0, "prefect": 10.0}  # seconds
LOOK_EVERY = 0.1  # seconds
COMMAND = (sys.executable, "-c", "from flows.cli.commands import main; main()")


@dataclass(frozen=True)
class Ports:
    """The ports of the three servers on loopback."""

    prefect: int = 4200
    mlflow: int = 5000
    receiver: int = 5055

    def free(self) -> "Ports":
        """These ports, with a free one in the place of each that is taken."""
        return Ports(**{name: free_port(port) for name, port in asdict(self).items()})

    def addresses(self) -> tuple[str, str, str]:
        """The addresses of Prefect, MLflow and the receiver."""
        return (
            f"http://{LOOPBACK}:{self.prefect}",
            f"http://{LOOPBACK}:{self.mlflow}",
            f"http://{LOOPBACK}:{self.receiver}",
        )


@dataclass
class Service:
    """One process of the stack: how it is started, when it last was, and how often it failed."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    log: Log
    health: str = ""  # the address that answers 200 once it serves; a worker has none
    folder: Path | None = None  # that it works in, if it is not ours
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    deaths: int = 0
    again_at: float = 0.0

    def start(self) -> None:
        """Start it, for the first time or again."""
        self.process, self.started = start(self.command, self.env, self.log.path, self.folder), time.monotonic()

    def wait(self, within: float, given_up: Callable[[], bool]) -> None:
        """Return once it serves, or `given_up` returns True. Raises StackError if it ends or does not answer."""
        if self.process is not None:
            wait_for_answer(self.process, self.name, self.health, self.log.path, within, given_up)


def wait_for_each(services: Iterable[Service], within: float, given_up: Callable[[], bool]) -> Iterator[Service]:
    """Yield each service once it serves, the quickest first, until `given_up` returns True.

    Raises StackError if one ends or does not answer.
    """
    left = list(services)
    ends = time.monotonic() + within
    while left and not given_up():
        for service in list(left):
            if answers(service.health):
                left.remove(service)
                yield service
            elif time.monotonic() > ends or (service.process is not None and service.process.poll() is not None):
                service.wait(0.0, given_up)  # which says what is wrong
        time.sleep(LOOK_EVERY)


def make_services(home: Path, ports: Ports, project: Path) -> dict[str, Service]:
    """Every process of the stack with its command and environment, in the order of their start."""
    prefect, mlflow, receiver = ports.addresses()
    common = server_environment() | {
        MARK: str(home),
        "PLUMBLINE_HOME": str(home),
        "PLUMBLINE_PROJECT": str(project),
        "PLUMBLINE_WEBHOOK_URL": f"{receiver}/webhook",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_COLORS": "false",
        "PYTHONUNBUFFERED": "1",
    }
    common.pop(NOTIFY_URL, None)
    spare_loopback(common)
    clients = {"PREFECT_API_URL": f"{prefect}/api", "MLFLOW_TRACKING_URI": mlflow}
    commands: dict[str, tuple[list[str], dict[str, str], str]] = {
        "prefect": (
            prefect_command(ports.prefect, "warning"),
            _prefect_env(home, prefect) | {"MLFLOW_TRACKING_URI": mlflow},  # a form may start from a run
            f"{prefect}/api/health",
        ),
        "mlflow": (
            [
                *(sys.executable, "-m", "uvicorn", "--factory", "tasks.registry.server:create_app"),
                *("--host", LOOPBACK, "--port", str(ports.mlflow), "--log-level", "warning"),
            ],
            _mlflow_env(home, ports.mlflow),
            f"{mlflow}/health",
        ),
        "receiver": ([*COMMAND, "receiver", "--port", str(ports.receiver)], clients, f"{receiver}/health"),
        "worker": (
            [
                *(sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", WORKER),
                *("--type", "process", "--install-policy", "never"),
            ],
            clients
            | FORMATS
            | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT), "PREFECT_WORKER_QUERY_SECONDS": "3"},
            "",
        ),
    }
    folder = stack_file(home, "log")
    folder.mkdir(parents=True, exist_ok=True)
    services = {
        name: Service(name, command, common | env, Log(folder / f"{name}.log"), health)
        for name, (command, env, health) in commands.items()
    }
    services["prefect"].folder = project  # where a run works, and so what a relative path in a form starts from
    return services


def project_folder() -> Path:
    """The folder with prefect.yaml: `PLUMBLINE_PROJECT`, else the one that holds the code. Raises ConfigError."""
    folder = Path(os.environ.get("PLUMBLINE_PROJECT") or Path(__file__).parents[2]).absolute()
    if not (folder / "prefect.yaml").is_file():
        raise ConfigError(f"PLUMBLINE_PROJECT {folder}: holds no prefect.yaml; name the project's root")
    return folder


def secret(home: Path, name: str) -> str:
    """A random secret of this home, in a file that only its owner can read; made at its first use.

    It is 32 random bytes in URL-safe base64, so it can serve as a Fernet key.
    """
    path = stack_file(home, "secret") / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f".{name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(urlsafe_b64encode(secrets.token_bytes(32)))
        with suppress(FileExistsError):  # another process was quicker
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text(encoding="ascii")


def stack_file(home: Path, name: str) -> Path:
    """A file or folder of the stack's own state."""
    return home / "stack" / name


def _prefect_env(home: Path, url: str) -> dict[str, str]:
    return {
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_SERVER_UI_ENABLED": "true",
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # it sends analytics to an outside host; it stays at /v2
        "PREFECT_UI_STATIC_DIRECTORY": str(home / "prefect" / "ui"),  # else it writes into the installation
        # Runs wait in the queue here by design. Marking twenty of them Late, all at once and every five seconds, locks
        # SQLite for everybody else.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "3600",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }


def _mlflow_env(home: Path, port: int) -> dict[str, str]:
    """The variables that `mlflow server` passes to uvicorn; without it there is no second process to leave behind.

    Artifacts are in the same folder as those of `plumbline run`.
    """
    artifacts = os.environ.get("PLUMBLINE_ARTIFACTS") or (home / "artifacts").as_uri()
    origins = [f"http://{host}:{port}" for host in (LOOPBACK, "localhost")]
    return {
        "_MLFLOW_SERVER_FILE_STORE": sqlite_uri(home / "mlflow.db"),
        "_MLFLOW_SERVER_REGISTRY_STORE": sqlite_uri(home / "mlflow.db"),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": artifacts,
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(origin.removeprefix("http://") for origin in origins),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "https,http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": secret(home, "encryption"),
    }
