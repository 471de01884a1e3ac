"""The services of docker/compose.yaml as processes on loopback: its commands and its settings, other addresses."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.stack.processes import LOOPBACK, answers
from tests.stack.docker import DOCKER, Service, Site, compose_services
from tests.stack.processes import process, wait_until

POSTGRES_BIN = max(
    (program.parent for program in Path("/usr/lib/postgresql").glob("*/bin/initdb")),
    key=lambda folder: int(folder.parent.name),
    default=Path("/usr/bin"),
)


@contextmanager
def postgres_and_redis(logs: Path) -> Iterator[Site]:
    """Run both on loopback with empty databases that are gone afterwards; yields where the other services go too."""
    for program, package in ((str(POSTGRES_BIN / "initdb"), "postgresql"), ("redis-server", "redis-server")):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing: apt-get install {package}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plumbline-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)  # PostgreSQL refuses to be root, and its user has to get through
        site = Site.free(folder)
        services = compose_services()
        stack.enter_context(_postgres(services["postgres"], site, logs / "postgres.log"))
        stack.enter_context(_redis(services["redis"], site, logs / "redis.log"))
        yield site


@contextmanager
def server(site: Site, name: str, log: Path) -> Iterator[str]:
    """Run a service as compose.yaml starts it; yields its address once it is healthy."""
    health = site.health(name)
    with process(site.command(name), prepared(site, name), log) as child:
        wait_until(lambda: answers(health), name, child, log)
        yield site.url(name)


def prepared(site: Site, name: str) -> dict[str, str]:
    """The environment of a service of ours, whose folders are there now."""
    _require_packages()
    for here in site.mounts(name).values():
        if not here.exists():
            here.mkdir(parents=True)
    return site.environment(name)


@contextmanager
def _postgres(service: Service, site: Site, log: Path) -> Iterator[None]:
    """A new cluster; the databases are made by the script that compose mounts."""
    data, port = site.folder / "postgres", site.ports["postgres"]
    data.mkdir(mode=0o700)
    password = site.folder / "password"
    password.write_text(service["environment"]["POSTGRES_PASSWORD"], "utf-8")
    options: dict[str, Any] = {"cwd": site.folder}
    if os.getuid() == 0:
        options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(data, "postgres", "postgres")
    initdb = [str(POSTGRES_BIN / "initdb"), "--pgdata", str(data), "--username", "postgres", "--pwfile", str(password)]
    subprocess.run([*initdb, "--auth", "scram-sha-256", "--no-sync"], check=True, capture_output=True, **options)
    password.unlink()
    settings = ["-c", f"listen_addresses={LOOPBACK}", "-c", f"unix_socket_directories={data}", "-c", "fsync=off"]
    command = [str(POSTGRES_BIN / "postgres"), "-D", str(data), "-p", str(port), *settings]
    with process(command, {"PATH": os.environ["PATH"]}, log, stop=signal.SIGINT, **options) as child:
        ready = [str(POSTGRES_BIN / "pg_isready"), "--quiet", "--host", LOOPBACK, "--port", str(port)]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL", child, log)
        _script(service, port)
        yield


def _script(service: Service, port: int) -> None:
    """What the image does once with the scripts in /docker-entrypoint-initdb.d."""
    (mount,) = (mount for mount in service["volumes"] if "docker-entrypoint-initdb.d" in mount)
    where = {"PGHOST": LOOPBACK, "PGPORT": str(port), "PGPASSWORD": service["environment"]["POSTGRES_PASSWORD"]}
    env = {"PATH": f"{POSTGRES_BIN}:{os.environ['PATH']}"} | service["environment"] | where
    made = subprocess.run(
        ["sh", str(DOCKER / mount.partition(":")[0])], env=env, check=False, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr


@contextmanager
def _redis(service: Service, site: Site, log: Path) -> Iterator[None]:
    data, port = site.folder / "redis", site.ports["redis"]
    data.mkdir()
    here = f"exec redis-server - --port {port} --bind {LOOPBACK} --dir {data} "
    command = [part.replace("exec redis-server - ", here) for part in service["command"]]
    assert command != service["command"]
    env = {"PATH": os.environ["PATH"]} | service["environment"]
    ping = ["redis-cli", "-p", str(port), "ping"]
    with process(command, env, log) as child:
        wait_until(
            lambda: b"PONG" in subprocess.run(ping, env=env, check=False, capture_output=True).stdout,
            "Redis", child, log,
        )  # fmt: skip
        yield


def _require_packages() -> None:
    missing = [name for name in ("prefect_redis", "psycopg", "flask_wtf") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} missing: pip install --constraint constraints.txt -e '.[test,server]'")
