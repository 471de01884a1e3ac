"""The connection to MLflow: its address, a client that fails within seconds, and one TrackingError for each failure."""

import logging
import os
import socket
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any
from urllib.parse import urlsplit

from alignment.errors import TrackingError
from alignment.locks import alone
from alignment.remote.refusals import meaning
from alignment.transient import is_transient
from tasks.addresses import reason, shown, sqlite_file
from tasks.home import home, tracking_uri
from tasks.importing import collector_paused
from tasks.proxies import is_behind_proxy

logger = logging.getLogger("plumbline")

CONNECT_SECONDS = 5.0
DEFAULTS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output belongs to --json
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # about 15 s in all, against the 4 minutes that MLflow would take
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds without an answer
}
NOISY = ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store", "mlflow.tracking.fluent")
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
HINTS = {
    "start": "start it, or unset MLFLOW_TRACKING_URI to use the local database",
    "sign_in": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "certificate": "MLFLOW_TRACKING_SERVER_CERT_PATH",
}
CLOUDS = {"botocore.": "s3", "boto3.": "s3", "google.auth.": "gs", "google.api_core.": "gs", "azure.": "az"}
"""The libraries by which MLflow's client reaches files in a bucket, each with the scheme of its addresses."""
OTHER_PLACES = (  # environment variables by which MLflow would read or write elsewhere
    *("MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "MLFLOW_RUN_CONTEXT"),
    *("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_TRACKING_DIR", "MLFLOW_REGISTRY_DIR"),
)


@dataclass(frozen=True)
class Place:
    """An MLflow server, or a database with the folder for its artifacts."""

    uri: str
    artifacts: Path | None

    @property
    def remote(self) -> bool:
        """Whether it is a server, which keeps the artifacts itself."""
        return urlsplit(self.uri).scheme in {"http", "https"}

    @property
    def shown(self) -> str:
        """The address without its password."""
        return shown(self.uri)

    @property
    def database(self) -> Path | None:
        """The file of a SQLite database, else None."""
        return sqlite_file(self.uri)


_place: Place | None = None
_global_state = RLock()


def configure(uri: str, artifacts: Path | None = None) -> None:
    """Use the MLflow at `uri` in this process; nothing is opened yet.

    `artifacts` is the folder for files if `uri` is a database; by default it is beside the SQLite file.
    """
    global _place
    _place = Place(uri, artifacts)


def place() -> Place:
    """The MLflow that `configure` set, else that of the environment, as in a worker process that only runs a task."""
    return _place or Place(tracking_uri(), home() / "artifacts")


def is_new() -> bool:
    """Whether MLflow is a database file that nobody has made yet, and that need not be made to find nothing in it."""
    return (database := place().database) is not None and not database.exists()


def client() -> Any:
    """A client of MLflow; the first call imports MLflow (seconds) and may create the database."""
    with guard():
        return _client(place().uri)


def check() -> None:
    """Fail before any GPU time is spent. Raises TrackingError if MLflow cannot be reached or written to."""
    here = place()
    scheme = urlsplit(here.uri).scheme.partition("+")[0]
    if scheme not in SCHEMES:
        raise TrackingError(
            f"MLflow at {here.shown}: not an address that works; give http(s)://host:port or sqlite:////folder/mlflow.db"
        )
    unused = [name for name in OTHER_PLACES if os.environ.get(name)]
    if unused:
        logger.warning(
            "not used: %s of the environment; MLFLOW_TRACKING_URI and the config say where", ", ".join(unused)
        )
    with guard():
        if here.database is not None:
            with database_lock(here.uri):
                _try_database(here.database)
        elif here.remote and not is_behind_proxy(here.uri):
            parts = urlsplit(here.uri)
            port = parts.port or (443 if scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
        client().search_experiments(max_results=1)


def experiment(name: str) -> str:
    """The id of the experiment, which is created if it is missing. Raises TrackingError if it was deleted."""
    from mlflow.exceptions import MlflowException

    found = client().get_experiment_by_name(name)
    if found is None:
        try:
            return str(client().create_experiment(name, artifact_location=_artifact_location()))
        except MlflowException as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client().get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"MLflow at {place().shown}: experiment {name!r} was deleted; restore it there, or set another "
            "registry.experiment"
        )
    return str(found.experiment_id)


@contextmanager
def guard() -> Iterator[None]:
    """Turn what MLflow, its database or its network raises into one TrackingError that names the address."""
    try:
        yield
    except Exception as error:
        if cloud := next((CLOUDS[name] for name in CLOUDS if type(error).__module__.startswith(name)), ""):
            raise _of_files(error, cloud) from error
        if not _from_mlflow(error):
            raise
        refusal = TrackingError(f"MLflow at {place().shown}: {reason(error, **HINTS)}")
        refusal.transient = is_transient(error)
        raise refusal from error


@contextmanager
def fluent() -> Iterator[None]:
    """Set MLflow's global state for the calls that take no client, one thread at a time, and restore it."""
    import mlflow

    global _place
    names = ("MLFLOW_TRACKING_URI", *OTHER_PLACES)
    with _global_state:
        configured, here = _place, place()
        _place = here  # without `configure` it reads the environment, whose variables are removed below
        before = {name: os.environ.pop(name) for name in names if name in os.environ}
        mlflow.set_tracking_uri(here.uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)
            os.environ.update(before)
            _place = configured


@contextmanager
def without_advice() -> Iterator[None]:
    """Silence MLflow's warnings about its own code, and its advice on parameters that our signature declares."""

    def wanted(record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO and "params provided to the `predict` method" not in record.getMessage()

    logger = logging.getLogger("mlflow.transformers")
    logger.addFilter(wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # of peft
            warnings.filterwarnings("ignore", ".*Any type hint is inferred as AnyType", UserWarning)
            warnings.filterwarnings("ignore", "The ``noload`` loader strategy is deprecated", DeprecationWarning)
            yield
    finally:
        logger.removeFilter(wanted)


def error_code(error: BaseException) -> str:
    """MLflow's name for an error, such as RESOURCE_DOES_NOT_EXIST; empty if it has none."""
    return str(getattr(error, "error_code", ""))


def _artifact_location() -> str | None:
    here = place()
    if here.remote:
        return None
    if elsewhere := os.environ.get("PLUMBLINE_ARTIFACTS"):
        return elsewhere
    folder = here.artifacts or (here.database.parent / "artifacts" if here.database else None)
    return folder.absolute().as_uri() if folder else None


@lru_cache(maxsize=4)
def _client(uri: str) -> Any:
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    with database_lock(uri):
        if (database := sqlite_file(uri)) is not None:
            _try_database(database)
        with collector_paused():
            from mlflow import MlflowClient

            for name in NOISY:
                logging.getLogger(name).setLevel(logging.WARNING)
            made = MlflowClient(tracking_uri=uri, registry_uri=uri)  # which imports its store
        if not Place(uri, None).remote:
            with without_advice():
                made.search_experiments(max_results=1)
                made.search_registered_models(max_results=1)
    return made


def database_lock(uri: str) -> AbstractContextManager[None]:
    """A lock for opening a database, which MLflow may have to make or migrate, and cannot in two processes at once."""
    if Place(uri, None).remote:
        return nullcontext()
    database = sqlite_file(uri)
    lock = database.with_name(f".{database.name}.lock") if database else home() / ".mlflow.lock"
    return alone(lock, "another process opens MLflow's database", level=logging.WARNING)


def _try_database(file: Path) -> None:
    """Open a SQLite file for writing: MLflow itself would retry a broken one for minutes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, timeout=CONNECT_SECONDS)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("SELECT count(*) FROM sqlite_master")
        connection.rollback()


def _of_files(error: Exception, cloud: str) -> TrackingError:
    """What a cloud's library raises through MLflow's client where it reads or writes a run's files."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    what = meaning(text, cloud, "PLUMBLINE_ARTIFACTS")
    refusal = TrackingError(f"MLflow's files in a bucket: {what or f'{text[:300]}; run again once it answers'}")
    refusal.transient = not what
    return refusal


def _from_mlflow(error: Exception) -> bool:
    if isinstance(error, OSError | sqlite3.Error):
        return True
    with suppress(ImportError):
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        return isinstance(error, MlflowException | SQLAlchemyError)
    return False
