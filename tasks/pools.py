"""Whether Prefect has the deployments that compute shards, and a work pool with somebody to work for it."""

import time
from collections.abc import Iterable
from contextlib import suppress

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, WorkPoolStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectException

from alignment.errors import StackError
from tasks.run_log import run_logger
from tasks.runners import RUNNER
from tasks.stopping import pause

ON_A_GPU, ON_PROCESSORS = "shards/shards", "shards/shards-cpu"
"""The deployments of prefect.yaml that compute shards: of a stage that takes GPU slots, and of one that takes none."""

WORKER_WITHIN = 60.0  # seconds that a pool without a worker is given to get one
LOOK_EVERY = 2.0  # seconds between two looks for it


def require_deployments() -> None:
    """Raise StackError where Prefect has no deployments of shards."""
    with get_client(sync_client=True) as client:
        for name in (ON_A_GPU, ON_PROCESSORS):
            _deployment(client, name)


def _deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound as error:
        raise StackError(
            f"{RUNNER} jobs: Prefect has no deployment {name}; set PREFECT_API_URL to a server on which `plumbline "
            f"bootstrap` or `plumbline up` made it, or set {RUNNER} to threads or ray"
        ) from error


def require_worker(client: SyncPrefectClient, deployment: str) -> str:
    """The name of the work pool of a deployment. Raises StackError where nobody works for it, also after a while."""
    pool = _deployment(client, deployment).work_pool_name or ""
    ends = time.monotonic() + WORKER_WITHIN
    while (why := _idle(client, pool)) and time.monotonic() < ends:
        pause(LOOK_EVERY)
    if why:
        raise StackError(f"{RUNNER} jobs: {why}, or set {RUNNER} to threads or ray")
    return pool


def _idle(client: SyncPrefectClient, pool: str) -> str:
    """Why nobody takes jobs from a pool, and what to do; empty where somebody does."""
    try:
        status = client.read_work_pool(pool).status
    except ObjectNotFound:
        return f"Prefect has no work pool {pool!r}; make it by `plumbline bootstrap`"
    if status == WorkPoolStatus.PAUSED:
        return f"the work pool {pool} is paused; resume it in Prefect"
    if status == WorkPoolStatus.NOT_READY:
        return f"the work pool {pool} has no worker; start one by `prefect worker start --pool {pool}`"
    return ""


def warn_where_nobody_works(client: SyncPrefectClient, pool: str, runs: Iterable[FlowRun]) -> None:
    """Say why no job is at work, where none is."""
    with suppress(HTTPError, PrefectException, OSError):  # it is for looking at only
        if not any(run.state and run.state.is_running() for run in runs):
            why = _idle(client, pool) or "its limits, or those of its queue, let none begin"
            run_logger().warning("no job has begun in the work pool %s: %s", pool, why)
