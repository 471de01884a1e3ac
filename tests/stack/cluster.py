"""All services of docker/compose.yaml as processes, kept up as Compose would, in the place of `plumbline up`."""

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.stack.docker import SECRETS
from tests.stack.machine import Machine, Passwords, machine
from tests.stack.processes import Kept, answers, wait_until
from tests.stack.services import postgres_and_redis, prepared

SERVERS = ("sqlite", "postgresql")
"""Where the servers keep what they know: in files, as with `plumbline up`, or in databases, as with Compose."""
PASSWORDS = Passwords(f"admin:{SECRETS['PREFECT_PASSWORD']}", ("admin", SECRETS["MLFLOW_ADMIN_PASSWORD"]))
WORKER = "worker-cpu"


@contextmanager
def cluster() -> Iterator[Machine]:
    """PostgreSQL, Redis, both servers, the receiver, what the bootstrap makes, and a worker, until the block ends."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        site = stack.enter_context(postgres_and_redis())
        kept: dict[str, Kept] = {}

        def keep(name: str) -> None:
            log = site.folder / f"{name}.log"
            kept[name] = Kept(site.command(name), prepared(site, name), log)
            stack.callback(kept[name].stop)
            wait_until(lambda: answers(site.health(name)), name, kept[name].child, log)

        for name in ("prefect", "mlflow", "receiver"):
            keep(name)
        made = subprocess.run(
            site.command("bootstrap"), env=prepared(site, "bootstrap"), check=False, capture_output=True, text=True
        )
        assert made.returncode == 0, made.stdout + made.stderr
        keep(WORKER)

        environment.setenv("MLFLOW_TRACKING_USERNAME", PASSWORDS.mlflow[0])
        environment.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORDS.mlflow[1])
        addresses = {name: site.url(name) for name in ("prefect", "mlflow")}
        names = {"prefect": "prefect", "worker": WORKER}
        yield Machine(
            site.mounts(WORKER)["/data"], addresses, lambda service: kept[names[service]].members(), PASSWORDS
        )


def stack_on(servers: str, folder: Path) -> AbstractContextManager[Machine]:
    """A stack of its own on either kind of servers."""
    return machine(folder / "home") if servers == "sqlite" else cluster()
