"""All services of docker/compose.yaml as processes, kept up as Compose would, in the place of `plumbline up`."""

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from flows.stack.processes import answers, end_marked
from tests.stack.docker import SECRETS
from tests.stack.machine import Machine, Passwords, machine
from tests.stack.processes import READY_WITHIN, Kept, wait_until
from tests.stack.services import postgres_and_redis, prepared

SERVERS = ("sqlite", "postgresql")
"""Where the servers keep what they know: in files, as with `plumbline up`, or in databases, as with Compose."""
PASSWORDS = Passwords(f"admin:{SECRETS['PREFECT_PASSWORD']}", ("admin", SECRETS["MLFLOW_ADMIN_PASSWORD"]))
WORKER = "worker-cpu"


@contextmanager
def cluster(logs: Path) -> Iterator[Machine]:
    """PostgreSQL, Redis, both servers, the receiver, what the bootstrap makes, and a worker, until the block ends.

    Their output goes to the folder `logs`. Meanwhile this process signs in to MLflow as the administrator.
    """
    with ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        site = stack.enter_context(postgres_and_redis(logs))
        stack.callback(end_marked, site.folder)  # a worker's runs have groups of their own
        kept: dict[str, Kept] = {}

        def keep(name: str) -> None:
            log, health = logs / f"{name}.log", site.health(name)
            kept[name] = Kept(site.command(name), prepared(site, name), log)
            stack.callback(kept[name].stop)
            wait_until(lambda: answers(health), name, kept[name].child, log)

        for name in ("prefect", "mlflow"):
            keep(name)
        bootstrap = site.command("bootstrap"), prepared(site, "bootstrap")
        made = subprocess.run(
            bootstrap[0], env=bootstrap[1], check=False, capture_output=True, text=True, timeout=READY_WITHIN
        )
        (logs / "bootstrap.log").write_text(made.stdout + made.stderr, "utf-8")
        assert made.returncode == 0, made.stdout + made.stderr
        for name in ("receiver", WORKER):
            keep(name)

        user, password = PASSWORDS.mlflow
        environment.setenv("MLFLOW_TRACKING_USERNAME", user)
        environment.setenv("MLFLOW_TRACKING_PASSWORD", password)
        addresses = {name: site.url(name) for name in ("prefect", "mlflow")}
        names = {"prefect": "prefect", "worker": WORKER}
        home = site.mounts(WORKER)["/data"]
        yield Machine(home, addresses, lambda service: kept[names[service]].members(), PASSWORDS)


def stack_on(servers: str, folder: Path) -> AbstractContextManager[Machine]:
    """A stack of its own on either kind of servers, with its logs in `folder`."""
    return machine(folder / "home") if servers == "sqlite" else cluster(folder)
