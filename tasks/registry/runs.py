"""The life of a run in MLflow: started with the configuration as parameters, tagged, and ended with a status."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal

import yaml

from alignment.config import AlignConfig, flatten
from alignment.config.label import label
from alignment.errors import Interrupted, NothingNewError, TrackingError
from alignment.stages.marks import is_alive
from tasks.addresses import shown
from tasks.registry import columns, notes
from tasks.registry.connection import check, client, configure, experiment, guard
from tasks.registry.descriptions import with_ours
from tasks.registry.pages import INSIDE, artifact_page, results_page, review_page, run_page, samples_page

__all__ = ["check", "configure"]  # re-exported, so that flows need no second module

logger = logging.getLogger("plumbline")

Status = Literal["FINISHED", "FAILED", "KILLED"]

MAX_PARAM = 6_000  # characters of a parameter's value, MLflow's limit
MAX_TAG = 8_000  # characters of a tag's value
PARAMS_PER_CALL = 100
NOTE = "mlflow.note.content"
PAGE = "report.html"  # the run's page as an artifact
FRONTIER_PAGE = "frontier.html"  # a frontier's, likewise
FRONTIER = "plumbline.frontier"
"""The tag of a frontier's run and of each of its trainings: the id of the frontier's run."""
REASON = "plumbline.reason"
REVIEW = "plumbline.review"
"""The tag with the id of the queue in which people rate the run's samples."""
REVIEW_RUN = "plumbline.review_run"
"""The tag with the id of the run that offered them first, of a run whose samples are the very same."""
VERDICT = "verdict"
"""The tag that people read in the table of runs: running, passed, refused, skipped, cancelled or failed."""


@contextmanager
def run(config: AlignConfig, run_name: str, tags: Mapping[str, str] | None = None, note: str = "") -> Iterator[str]:
    """Start a run, and end it: FINISHED (also if skipped), FAILED after an error, or KILLED after a cancellation.

    Its description and its tag `verdict` say how it stands, and why it ended so. The error is raised even if MLflow
    cannot record it.
    """
    run_id = start_run(config, run_name, tags, note)
    links = _links(tags or {})
    try:
        yield run_id
    except NothingNewError as error:
        tag(run_id, {"plumbline.verdict": "skipped", REASON: str(error), VERDICT: "skipped"})
        write_note(run_id, notes.skipped(str(error), links))
        finish(run_id, "FINISHED")
        raise
    except BaseException as error:
        if _is_stop(error):
            _end_quietly(run_id, "KILLED", {VERDICT: "cancelled"}, notes.cancelled(links))
        else:
            said = {VERDICT: "failed", REASON: shown(str(error)) or type(error).__name__}
            _end_quietly(run_id, "FAILED", said, notes.failed(error, links))
        raise
    finish(run_id, "FINISHED")


def start_run(config: AlignConfig, run_name: str, tags: Mapping[str, str] | None = None, note: str = "") -> str:
    """Start a run in the config's experiment, with each field as a parameter and `config.yaml`; returns its id.

    Without a name it is called what sets it apart. Empty `tags` are left out. `note` is Markdown by people, which
    stays below what Plumbline writes. Runs of this host whose process died are ended first.
    Raises TrackingError, as every function here does if MLflow cannot be reached or refuses.
    """
    from mlflow.entities import Param

    all_tags = {
        "mlflow.source.name": "plumbline",
        "mlflow.source.type": "JOB",
        NOTE: with_ours(note, notes.running(_links(tags or {}))),
        VERDICT: "running",
        "plumbline.host": socket.gethostname(),
        "plumbline.pid": str(os.getpid()),
    } | dict(tags or {})
    params = [Param(name, _cut(str(value), MAX_PARAM)) for name, value in flatten(config).items()]
    with guard():
        where = experiment(config.registry.experiment)
        _offer_columns(where)
        _end_orphans(where)
        name = run_name or label(config)
        run_id = str(client().create_run(where, run_name=name, tags=_tags(all_tags)).info.run_id)
        try:
            for start in range(0, len(params), PARAMS_PER_CALL):
                client().log_batch(run_id, params=params[start : start + PARAMS_PER_CALL])
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            client().log_text(run_id, text, "config.yaml")
        except BaseException:
            _end_quietly(run_id, "FAILED", {VERDICT: "failed"}, "")
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


def conclude(run_id: str, verdict: str, sentence: str, *, told: str = "", links: Mapping[str, str] = {}) -> None:
    """Record what was made of the run, `pass` or `fail`, and why; its description says it, then `told` and links.

    `told` is Markdown, and `links` are titles with addresses.
    """
    word = "passed" if verdict == "pass" else "refused"
    tag(run_id, {"plumbline.verdict": verdict, REASON: sentence, VERDICT: word})
    with guard():
        found = client().get_run(run_id)
    elsewhere = {
        "report": artifact_page(found.info.experiment_id, run_id, PAGE, INSIDE) if told else "",
        **_samples(found.info.experiment_id, run_id, found.data.tags),
        **_links(found.data.tags),
        "all results": results_page(found.info.experiment_id, INSIDE),
    }
    write_note(run_id, notes.concluded(word, sentence, told, {**links, **elsewhere}))


def measured(run_id: str, sentence: str) -> None:
    """Record what a frontier, or one of its trainings, found: no verdict, as nothing is registered of it."""
    tag(run_id, {REASON: sentence})
    with guard():
        found = client().get_run(run_id)
        if VERDICT in found.data.tags:  # that it is running
            client().delete_tag(run_id, VERDICT)
    frontier, where = found.data.tags.get(FRONTIER, ""), found.info.experiment_id
    links = {"frontier": artifact_page(where, frontier, FRONTIER_PAGE, INSIDE)} if frontier else {}
    write_note(run_id, notes.measured(sentence, links | _links(found.data.tags)))


def write_note(run_id: str, ours: str) -> None:
    """Describe the run anew; what people wrote below stays."""
    with guard():
        before = client().get_run(run_id).data.tags.get(NOTE, "")
    tag(run_id, {NOTE: with_ours(before, ours)})


def run_url(run_id: str) -> str:
    """Where a person can see the run: a link, or the command that serves the local database."""
    with guard():
        return run_page(client().get_run(run_id).info.experiment_id, run_id)


def artifact_url(run_id: str, name: str) -> str:
    """Where a person can see one of the run's artifacts: a link, or the command that serves the local database."""
    with guard():
        return artifact_page(client().get_run(run_id).info.experiment_id, run_id, name)


def rating_url(run_id: str) -> str:
    """Where people rate the run's samples: a link, or the command that serves the local database.

    Of a run without a queue it is the page of its samples.
    """
    with guard():
        found = client().get_run(run_id)
    queue = found.data.tags.get(REVIEW, "")
    where = found.info.experiment_id
    return review_page(where, queue) if queue else samples_page(where, run_id)


def _offer_columns(where: str) -> None:
    """Have the table of the experiment's runs offer the columns of the results, unless a person has changed them."""
    with suppress(TrackingError), guard():  # another user's experiment, which this one may not change
        view = client().get_experiment(where).tags.get(columns.TAG)
        if view is None or columns.is_outdated(view):
            client().set_experiment_tag(where, columns.TAG, columns.saved_view())


def _links(tags: Mapping[str, str]) -> dict[str, str]:
    """What every note links to."""
    return {"Prefect": tags.get("prefect.flow_run_url", "")}


def _samples(where: str, run_id: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Where people read and rate the samples; nothing where the run has none to rate."""
    if not (queue := tags.get(REVIEW, "")):
        return {}
    shown_by = tags.get(REVIEW_RUN, run_id)
    return {"samples": samples_page(where, shown_by, INSIDE), "rate them": review_page(where, queue, INSIDE)}


def _end_orphans(where: str) -> None:
    """End this host's runs whose process died before it could, as by `kill -9`."""
    host = socket.gethostname().replace("'", "")
    query = f"attributes.status = 'RUNNING' and tags.`plumbline.host` = '{host}'"
    for found in client().search_runs([where], query):
        pid = found.data.tags.get("plumbline.pid", "")
        if pid.isdecimal() and not is_alive(int(pid)):
            with suppress(TrackingError):  # another user's run, which this one may not change
                ended = f"process {pid} on {host} died; ended by a later run"
                tag(found.info.run_id, {"plumbline.ended": ended, VERDICT: "failed"})
                write_note(found.info.run_id, notes.lost(f"Its {ended}", _links(found.data.tags)))
                finish(found.info.run_id, "FAILED")


def _is_stop(error: BaseException) -> bool:
    """Whether somebody stopped the run, at the terminal or in Prefect."""
    from prefect.exceptions import CancelledRun, TerminationSignal  # half a second, which reading a run can do without

    return isinstance(error, CancelledRun | TerminationSignal | KeyboardInterrupt | Interrupted)


def _end_quietly(run_id: str, status: Status, tags: Mapping[str, str], note: str) -> None:
    """End a run while another error is being raised, which an error of MLflow's must not replace."""
    try:
        finish(run_id, status)
        tag(run_id, tags)
        if note:
            write_note(run_id, note)
    except Exception as error:  # noqa: BLE001 - logged, and the first error is raised
        logger.warning("run %s could not be ended as %s: %s", run_id, status, error)


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: _cut(value, MAX_TAG) for name, value in tags.items() if value}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
