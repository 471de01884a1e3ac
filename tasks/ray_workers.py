"""The shards of a stage on Ray: each is a task on some worker, which finds its inputs in the store and writes to it.

Ray gives a worker its GPUs, keeps its process and with it the models that are loaded, and computes again what a lost
worker was at. A task is given references, as every other; what a worker cannot see or would compute otherwise is
refused before it begins.
"""

import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prefect import Flow, unmapped
from prefect.context import FlowRunContext
from prefect.futures import as_completed
from prefect.settings import PREFECT_API_URL

from alignment.config import AlignConfig
from alignment.endpoints import is_local
from alignment.errors import ConfigError, PlumblineError, StackError
from alignment.stages.plan import lineage
from alignment.stages.stage import Refs, Stage
from alignment.stages.store import StageRef
from tasks.addresses import shown
from tasks.home import DEFAULTS
from tasks.progress import Event
from tasks.running import part_label, tell
from tasks.workers import PART, Ranges

ADDRESS = "RAY_ADDRESS"
HERE = "local"
ANSWERS_WITHIN = 5.0  # seconds
LOST = 3  # workers that may be lost over one shard
OBJECTS = 128 * 2**20  # bytes that workers of this machine may pass to one another: only references are
TRAVELS = ("PLUMBLINE_HOME", "PLUMBLINE_STORE", "PLUMBLINE_STORE_CACHE_GB", "HF_HUB_OFFLINE", *DEFAULTS)
"""Variables that a worker needs before it imports anything. None is a secret: Ray's pages show them."""


def compute_parts(stage: Stage, config: AlignConfig, refs: Refs, ranges: Ranges) -> list[StageRef]:
    """Every part of a stage on a worker of Ray, in order. Raises what a part raises first; the others are stopped.

    Raises ConfigError where Ray is not installed, and StackError where the cluster cannot be used or loses too many
    workers.
    """
    assert stage.parts is not None
    with _connected(stage.slots(config)) as runner, _named_run(), _stopped_on_error() as futures:
        futures += runner.map(
            PART.with_options(name=stage.parts.title, task_run_name=f"{stage.parts.title} {{part}}"),
            {
                "part": ranges,
                "name": unmapped(stage.name),
                "config": unmapped(config),
                "refs": unmapped(dict(refs)),
                "made_of": unmapped(lineage(stage, config, refs)),
            },
        )
        of = dict(zip((future.task_run_id for future in futures), ranges, strict=True))
        for future in as_completed(list(futures)):
            label = part_label(stage, of[future.task_run_id])
            ref = _result(future, label)
            tell(Event(label, "cached" if ref.cached else "computed", ref=ref))
        return [future.result() for future in futures]


@contextmanager
def _connected(gpus: int) -> Iterator[Any]:
    """A task runner of a Ray that this process is connected to; it stays so, with its workers and their models.

    A task of it has a core, and so many GPUs where the cluster has some; a worker with GPUs would end after one task
    otherwise, and the next one load the model again.
    """
    _require_installed()
    import ray
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    if not ray.is_initialized():
        _connect(ray)
    machines = [str(node["NodeManagerAddress"]) for node in ray.nodes() if node["alive"]]
    require_reachable(str(PREFECT_API_URL.value() or ""), machines, ray.util.get_node_ip_address())
    has_gpus = bool(ray.cluster_resources().get("GPU"))
    with (
        RayTaskRunner() as runner,
        remote_options(num_cpus=1, num_gpus=gpus if has_gpus else 0, max_calls=0, max_retries=LOST),
    ):
        yield runner


def require_startable() -> None:
    """Raise what the first shard would be refused for: ConfigError without Ray, StackError where none answers."""
    _require_installed()
    require_answer(address())


def _require_installed() -> None:
    """Import Ray under this process's settings of it, which it reads only then."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address() == HERE:  # Ray asks for a token unless RAY_AUTH_MODE says otherwise, and would keep its own in ~/.ray
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import prefect_ray.context  # noqa: F401 - it is imported again where it is used
        import ray  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"PLUMBLINE_RUNNER ray: {error.name} is not installed; in Plumbline's folder: pip install -e '.[ray]', "
            "or set it to threads"
        ) from error


def _connect(ray: Any) -> None:
    """Connect to the cluster, or begin one of this machine's cores that ends with this process."""
    where = address()
    require_answer(where)
    ours = {"_node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": OBJECTS}
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            where,
            namespace="plumbline",
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {name: os.environ[name] for name in TRAVELS if name in os.environ}},
            **(ours if where == HERE else {}),
        )
    except Exception as error:  # Ray's own are of every kind, and bare where its processes begin too slowly
        reason = " ".join(str(error).split())
        raise StackError(
            f"{ADDRESS} {shown(where)}: this Ray cannot be used: {reason}; see that its processes run, in the release "
            f"{ray.__version__}, and that RAY_AUTH_MODE is here what `ray start` was given (token, unless it was told "
            "otherwise), or set PLUMBLINE_RUNNER to threads"
        ) from error
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would end the process before the run has said why


def address() -> str:
    """Where the cluster is: one of this process, unless the environment names another."""
    return os.environ.get(ADDRESS) or HERE


def require_answer(address: str) -> None:
    """Raise StackError where nothing listens at the address of a cluster; Ray itself would try for a minute."""
    found = re.fullmatch(r"(?:ray://)?\[?([^\[\]]+?)\]?:(\d+)", address)
    if found is None:
        return
    try:
        with socket.create_connection((found[1], int(found[2])), ANSWERS_WITHIN):
            return
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StackError(
            f"{ADDRESS} {address}: no Ray answers there ({reason}); begin one by `ray start --head`, correct the "
            f"address, or unset {ADDRESS} for workers on this machine alone"
        ) from error


def require_reachable(api: str, machines: Sequence[str], here: str) -> None:
    """Raise StackError where workers on other machines are to report to a Prefect that only this machine reaches."""
    others = sorted(set(machines) - {here, "127.0.0.1"})
    if others and (not api or is_local(api)):
        raise StackError(
            f"Ray: the worker on {others[0]} cannot report to Prefect at {shown(api) or 'this process'}; set "
            "PREFECT_API_URL to a server that every machine of the cluster reaches"
        )


@contextmanager
def _named_run() -> Iterator[None]:
    """The run at work as workers are told of it: by its flow's name alone, since a flow's code is nothing for them."""
    run = FlowRunContext.get()
    if run is None or run.flow is None:
        yield
        return
    with run.model_copy(update={"flow": Flow(_no_flow, name=run.flow.name), "parameters": {}}):
        yield


def _no_flow() -> None:
    """Stands for the flow of a run on a worker."""


@contextmanager
def _stopped_on_error() -> Iterator[list[Any]]:
    """The futures of all parts: where one fails, or the run is asked to stop, workers leave the others."""
    import ray

    futures: list[Any] = []
    try:
        yield futures
    except BaseException:
        for future in futures:
            ray.cancel(future.wrapped_future, force=True)
        raise


def _result(future: Any, label: str) -> StageRef:
    """What a part made. Raises what it raised, and StackError where its workers were lost."""
    from ray.exceptions import RayError

    try:
        found: StageRef = future.result()
    except PlumblineError:
        raise
    except RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise StackError(
            f"Ray: {label} was lost with its worker {LOST + 1} times ({reason}); look at the memory of the workers, or "
            "lower sampling.shard_prompts"
        ) from error
    return found
