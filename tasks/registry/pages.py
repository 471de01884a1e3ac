"""The pages of MLflow that people open: links to them, or the command that serves them from a local database.

MLflow opens on its side for GenAI unless a link says otherwise; no tag of an experiment changes that.
"""

import os
from shlex import quote as in_shell
from urllib.parse import quote

from tasks.registry import columns
from tasks.registry.connection import place

PUBLIC = "PLUMBLINE_MLFLOW_URL"  # the address that people open MLflow at, if it is not the one that runs use
INSIDE = ""  # in place of an address: a link from one of MLflow's own pages to another
SIDE = "workflowType=machine_learning"
GENAI = "workflowType=genai"  # the side that alone has reviews
LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` serves


def run_page(experiment: str, run: str, at: str | None = None) -> str:
    """A run's page; `experiment` is an id. `at` is MLflow's address, by default the one in use, as in all of these."""
    return _page(f"experiments/{experiment}/runs/{run}", at)


def artifact_page(experiment: str, run: str, name: str, at: str | None = None) -> str:
    """One of a run's artifacts, in MLflow's viewer."""
    return _page(f"experiments/{experiment}/runs/{run}/artifacts/{quote(name)}", at)


def samples_page(experiment: str, run: str, at: str | None = None) -> str:
    """A run's samples, a row for each prompt with its scores."""
    return _page(f"experiments/{experiment}/runs/{run}/traces", at)


def review_page(experiment: str, queue: str, at: str | None = None) -> str:
    """The samples of a run that wait to be rated, in the queue of this id."""
    return f"{_page(f'experiments/{experiment}/review-queue', at, GENAI)}&selectedQueueId={queue}"


def experiment_page(experiment: str, at: str | None = None) -> str:
    """The runs of an experiment, given by its id, as a table."""
    return _page(f"experiments/{experiment}/runs", at)


def results_page(experiment: str, at: str | None = None) -> str:
    """The runs of an experiment with the columns of their results."""
    return f"{experiment_page(experiment, at)}&viewStateShareKey={columns.KEY}"


def experiments_page(at: str | None = None) -> str:
    """The list of experiments."""
    return _page("experiments", at)


def models_page(at: str | None = None) -> str:
    """The list of registered models."""
    return _page("models", at)


def model_page(name: str, at: str | None = None) -> str:
    """A registered model with its versions."""
    return _page(f"models/{quote(name, safe='')}", at)


def version_page(name: str, version: str, at: str | None = None) -> str:
    """One version of a registered model."""
    return _page(f"models/{quote(name, safe='')}/versions/{version}", at)


def _page(path: str, at: str | None, side: str = SIDE) -> str:
    here = place()
    link = f"#/{path}?{side}"
    if at == INSIDE:
        return link
    if at or here.remote:
        return f"{(at or os.environ.get(PUBLIC) or here.shown).rstrip('/')}/{link}"
    return f"mlflow ui --backend-store-uri {in_shell(here.shown)}, then {LOCAL}/{link}"
