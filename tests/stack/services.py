"""The services of docker/compose.yaml as processes on loopback: its commands and its settings, other addresses."""

import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).parents[2] / "docker"
POSTGRES_BIN = Path("/usr/lib/postgresql/15/bin")
SECRETS = {
    name: secrets.token_urlsafe(24)
    for name in (
        *("POSTGRES_PASSWORD", "PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD", "REDIS_PASSWORD", "PREFECT_PASSWORD"),
        *("MLFLOW_ADMIN_PASSWORD", "MLFLOW_SESSION_KEY", "WEBHOOK_SECRET"),
    )
} | {"MLFLOW_WEBHOOK_KEY": secrets.token_urlsafe(32) + "="}
READY_WITHIN = 300.0  # seconds; two cores that do other things need a minute
STOPPED_WITHIN = 20.0  # seconds

Service = dict[str, Any]
Env = dict[str, str]


@dataclass(frozen=True)
class Backing:
    """PostgreSQL and Redis as they run, and what Prefect's and MLflow's servers need to use them."""

    postgres_port: int
    redis_port: int
    prefect: Env
    mlflow: Env


def compose_services(values: Mapping[str, str] = SECRETS) -> dict[str, Service]:
    """The services of compose.yaml with `values` put in; raises KeyError where a secret has none."""
    whole = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
    found: dict[str, Service] = _filled(whole["services"], values)
    return found


@contextmanager
def postgres_and_redis() -> Iterator[Backing]:
    """Run both on free ports of loopback, with empty databases that are gone afterwards."""
    _require(POSTGRES_BIN / "initdb", shutil.which("redis-server"))
    services = compose_services()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plumbline-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)  # PostgreSQL refuses to be root, and its user has to get through
        postgres_port = stack.enter_context(_postgres(services["postgres"], folder))
        redis_port = stack.enter_context(_redis(services["redis"], folder))
        yield Backing(
            postgres_port,
            redis_port,
            _moved(services["prefect"], postgres_port, redis_port, folder),
            _moved(services["mlflow"], postgres_port, redis_port, folder),
        )


@contextmanager
def prefect_server(backing: Backing, log: Path, port: int | None = None) -> Iterator[str]:
    """Run compose's Prefect server on loopback; yields its address once it is healthy."""
    with _server("prefect", backing.prefect, log, port) as address:
        yield address


@contextmanager
def mlflow_server(backing: Backing, log: Path, port: int | None = None) -> Iterator[str]:
    """Run compose's MLflow server on loopback; yields its address once it is healthy."""
    with _server("mlflow", backing.mlflow, log, port) as address:
        yield address


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(
    command: list[str], env: Mapping[str, str], log: Path, *, stop: int = signal.SIGTERM, **options: Any
) -> Iterator[Any]:
    """A child process in a group of its own, stopped at the end, by force where it does not want to."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, env=dict(env), stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options
        )
    try:
        yield child
    finally:
        child.send_signal(stop)
        try:
            child.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def wait_until(ready: Callable[[], bool], what: str, child: Any = None, log: Path | None = None) -> None:
    """Return once `ready()` holds; fails after five minutes, or when the child has ended, with the end of its log."""
    ends = time.monotonic() + READY_WITHIN
    while time.monotonic() < ends and (child is None or child.poll() is None):
        if ready():
            return
        time.sleep(0.2)
    told = log.read_text("utf-8", errors="replace")[-3_000:] if log else ""
    pytest.fail(f"{what} did not get ready; the end of its log:\n{told}")


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def _postgres(service: Service, folder: Path) -> Iterator[int]:
    """A new cluster; the databases are made by the script that compose mounts."""
    data, log, port = folder / "postgres", folder / "postgres.log", free_port()
    data.mkdir(mode=0o700)
    password = folder / "password"
    password.write_text(service["environment"]["POSTGRES_PASSWORD"], "utf-8")
    options: dict[str, Any] = {"cwd": folder}
    if os.getuid() == 0:
        options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(data, "postgres", "postgres")
    initdb = [str(POSTGRES_BIN / "initdb"), "--pgdata", str(data), "--username", "postgres", "--pwfile", str(password)]
    subprocess.run([*initdb, "--auth", "scram-sha-256", "--no-sync"], check=True, capture_output=True, **options)
    password.unlink()
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}", "-c", "fsync=off"]
    command = [str(POSTGRES_BIN / "postgres"), "-D", str(data), "-p", str(port), *settings]
    with process(command, {"PATH": os.environ["PATH"]}, log, stop=signal.SIGINT, **options) as child:
        ready = [str(POSTGRES_BIN / "pg_isready"), "--quiet", "--host", "127.0.0.1", "--port", str(port)]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL", child, log)
        _script(service, port)
        yield port


def _script(service: Service, port: int) -> None:
    """What the image does once with the scripts in /docker-entrypoint-initdb.d."""
    (mount,) = (mount for mount in service["volumes"] if "docker-entrypoint-initdb.d" in mount)
    where = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGPASSWORD": service["environment"]["POSTGRES_PASSWORD"]}
    env = {"PATH": f"{POSTGRES_BIN}:{os.environ['PATH']}"} | service["environment"] | where
    made = subprocess.run(
        ["sh", str(DOCKER / mount.partition(":")[0])], env=env, check=False, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr


@contextmanager
def _redis(service: Service, folder: Path) -> Iterator[int]:
    data, log, port = folder / "redis", folder / "redis.log", free_port()
    data.mkdir()
    here = f"exec redis-server - --port {port} --bind 127.0.0.1 --dir {data} "
    command = [part.replace("exec redis-server - ", here) for part in service["command"]]
    assert command != service["command"]
    env = {"PATH": os.environ["PATH"]} | service["environment"]
    ping = ["redis-cli", "-p", str(port), "ping"]
    with process(command, env, log) as child:
        wait_until(
            lambda: b"PONG" in subprocess.run(ping, env=env, check=False, capture_output=True).stdout,
            "Redis", child, log,
        )  # fmt: skip
        yield port


def _moved(service: Service, postgres_port: int, redis_port: int, folder: Path) -> Env:
    """The service's environment with the addresses and folders of this machine."""
    ports = {"postgres": str(postgres_port), "redis": str(redis_port)}
    moved: Env = {}
    for name, value in service["environment"].items():
        if value in ports:
            moved[name] = "127.0.0.1"
        elif value in {"5432", "6379"}:
            moved[name] = ports["postgres" if value == "5432" else "redis"]
        elif value == "/etc/mlflow/auth.ini":
            moved[name] = str(DOCKER / "mlflow" / "auth.ini")
        else:
            moved[name] = re.sub(r"^/(data|tmp)(?=/)", rf"{folder}/\1", value).replace(
                "@redis:6379", f"@127.0.0.1:{redis_port}"
            )
    return moved


@contextmanager
def _server(name: str, env: Env, log: Path, port: int | None) -> Iterator[str]:
    """Run the service's command as it is in compose.yaml, on loopback and another port."""
    _require_packages()
    service, port = compose_services()[name], port or free_port()
    program, *arguments = service["command"]
    place = {"0.0.0.0": "127.0.0.1", "4200": str(port), "5000": str(port)}
    command = [str(Path(sys.executable).parent / program), *(place.get(part, part) for part in arguments)]
    home = log.parent / f"{name}-home"
    home.mkdir(exist_ok=True)
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home)}
    with process(command, path | {"PREFECT_HOME": str(home)} | quiet | env, log) as child:
        health = re.sub(r":\d+/", f":{port}/", service["environment"]["HEALTH_URL"])
        wait_until(lambda: answers(health), name, child, log)
        yield f"http://127.0.0.1:{port}"


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    """Compose's interpolation: `${NAME:?message}`, `${NAME:-default}` and `$$`."""
    if isinstance(value, dict):
        return {name: _filled(part, values) for name, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, values) for part in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found["name"], found["kind"], found["rest"]
        if name is None:
            return "$"
        return values[name] if kind == ":?" else values.get(name) or rest

    return re.sub(r"\$(?:\$|\{(?P<name>\w+)(?P<kind>:[?-])(?P<rest>[^}]*)\})", fill, value)


def _require(*programs: Path | str | None) -> None:
    if all(program is not None and Path(program).exists() for program in programs):
        return
    message = "PostgreSQL 15 or Redis is missing: apt-get install postgresql redis-server"
    if os.getuid():
        pytest.skip(f"{message} (as root)")
    pytest.fail(message)


def _require_packages() -> None:
    missing = [name for name in ("prefect_redis", "psycopg", "flask_wtf") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} missing: pip install --constraint constraints.txt -e '.[test,server]'")
