"""The life of a run in MLflow: started with the configuration as parameters, tagged, and ended with a status."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal

import yaml

from alignment.config import AlignConfig, flatten
from alignment.errors import Interrupted, NothingNewError, TrackingError
from alignment.stages.store import is_alive
from tasks.registry.connection import check, client, configure, experiment, guard
from tasks.registry.pages import artifact_page, run_page

__all__ = ["check", "configure"]  # re-exported, so that flows need no second module

logger = logging.getLogger("plumbline")

Status = Literal["FINISHED", "FAILED", "KILLED"]

MAX_PARAM = 6_000  # characters of a parameter's value, MLflow's limit
MAX_TAG = 8_000  # characters of a tag's value
PARAMS_PER_CALL = 100


@contextmanager
def run(config: AlignConfig, run_name: str, tags: Mapping[str, str] | None = None, note: str = "") -> Iterator[str]:
    """Start a run, and end it: FINISHED (also if skipped), FAILED after an error, or KILLED after a cancellation.

    The error is raised even if MLflow cannot record it.
    """
    run_id = start_run(config, run_name, tags, note)
    try:
        yield run_id
    except NothingNewError as error:
        tag(run_id, {"plumbline.verdict": "skipped", "plumbline.reason": str(error)})
        finish(run_id, "FINISHED")
        raise
    except BaseException as error:
        _finish_quietly(run_id, "KILLED" if _is_stop(error) else "FAILED")
        raise
    finish(run_id, "FINISHED")


def start_run(config: AlignConfig, run_name: str, tags: Mapping[str, str] | None = None, note: str = "") -> str:
    """Start a run in the config's experiment, with each field as a parameter and `config.yaml`; returns its id.

    Empty `tags` are left out. `note` is Markdown for people. Runs of this host whose process died are ended first.
    Raises TrackingError, as every function here does if MLflow cannot be reached or refuses.
    """
    from mlflow.entities import Param

    all_tags = {
        "mlflow.source.name": "plumbline",
        "mlflow.source.type": "JOB",
        "mlflow.note.content": note,
        "plumbline.host": socket.gethostname(),
        "plumbline.pid": str(os.getpid()),
    } | dict(tags or {})
    params = [Param(name, _cut(str(value), MAX_PARAM)) for name, value in flatten(config).items()]
    with guard():
        where = experiment(config.registry.experiment)
        _end_orphans(where)
        run_id = str(client().create_run(where, run_name=run_name, tags=_tags(all_tags)).info.run_id)
        try:
            for start in range(0, len(params), PARAMS_PER_CALL):
                client().log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            client().log_text(run_id, text, "config.yaml")
        except BaseException:
            _finish_quietly(run_id, "FAILED")
            raise
    return run_id


def finish(run_id: str, status: Status) -> None:
    """End the run."""
    with guard():
        client().set_terminated(run_id, status)


def tag(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags on the run."""
    from mlflow.entities import RunTag

    with guard():
        client().log_batch(run_id, tags=[RunTag(name, value) for name, value in _tags(tags).items()])


def run_url(run_id: str) -> str:
    """Where a person can see the run: a link, or the command that serves the local database."""
    with guard():
        return run_page(client().get_run(run_id).info.experiment_id, run_id)


def artifact_url(run_id: str, name: str) -> str:
    """Where a person can see one of the run's artifacts: a link, or the command that serves the local database."""
    with guard():
        return artifact_page(client().get_run(run_id).info.experiment_id, run_id, name)


def _end_orphans(where: str) -> None:
    """End this host's runs whose process died before it could, as by `kill -9`."""
    host = socket.gethostname().replace("'", "")
    query = f"attributes.status = 'RUNNING' and tags.`plumbline.host` = '{host}'"
    for found in client().search_runs([where], query):
        pid = found.data.tags.get("plumbline.pid", "")
        if pid.isdecimal() and not is_alive(int(pid)):
            with suppress(TrackingError):  # another user's run, which this one may not change
                tag(found.info.run_id, {"plumbline.ended": f"process {pid} on {host} died; ended by a later run"})
                finish(found.info.run_id, "FAILED")


def _is_stop(error: BaseException) -> bool:
    """Whether somebody stopped the run, at the terminal or in Prefect."""
    from prefect.exceptions import CancelledRun, TerminationSignal  # half a second, which reading a run can do without

    return isinstance(error, CancelledRun | TerminationSignal | KeyboardInterrupt | Interrupted)


def _finish_quietly(run_id: str, status: Status) -> None:
    """End a run while another error is being raised, which an error of MLflow's must not replace."""
    try:
        finish(run_id, status)
    except Exception as error:  # noqa: BLE001 - logged, and the first error is raised
        logger.warning("run %s could not be ended as %s: %s", run_id, status, error)


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: _cut(value, MAX_TAG) for name, value in tags.items() if value}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
