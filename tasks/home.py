"""The folder that a run writes to, and the environment that keeps every library's files in it and telemetry off."""

import os
import warnings
from pathlib import Path

from alignment.environment import drop_overrides
from alignment.errors import ConfigError, StoreError
from alignment.stages.store import Store
from tasks.addresses import shown, sqlite_uri, unfit_signs
from tasks.proxies import require_usable, spare_loopback

HEARTBEAT = 30  # seconds between two heartbeats of a run; Prefect accepts no less
SILENT_AFTER = 3 * HEARTBEAT  # seconds without a heartbeat until a run counts as dead; less killed healthy runs

TELEMETRY_OFF = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "true",
}

DEFAULTS = TELEMETRY_OFF | {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "alignment,plumbline",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # these loggers are used outside of a run as well
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT),
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait take the other process's core
}


def home() -> Path:
    """`PLUMBLINE_HOME`, or `.plumbline` in the working directory; absolute."""
    return Path(os.environ.get("PLUMBLINE_HOME") or ".plumbline").absolute()


def store() -> Store:
    """The stage store: that which `PLUMBLINE_STORE` names, else this home's. Raises ConfigError for what names none."""
    address = os.environ.get("PLUMBLINE_STORE", "")
    if not address:
        return Store(home() / "store")
    from alignment.remote.opening import open_store

    return open_store(address, home(), os.environ.get("PLUMBLINE_STORE_CACHE_GB", ""))


def place_told() -> str:
    """A line that says which store is used, where it is not this home's own; else nothing.

    A folder that is still to be made may be one whose disk is not mounted, so the line says that as well.
    """
    address = os.environ.get("PLUMBLINE_STORE")
    if not address:
        return ""
    from alignment.remote.opening import is_there

    is_new = "://" not in address and not is_there(store().root)
    return f"The store is {shown(store().place)}{', which does not exist yet and will be made' if is_new else ''}"


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI` if it is set, else the SQLite database of this home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(home() / "mlflow.db")


def prepare_environment() -> None:
    """Make the home and set the defaults; call it before Prefect, MLflow, torch or a Hugging Face library is imported.

    Raises ConfigError if PLUMBLINE_HOME or a proxy cannot be used, StoreError if the home cannot be written.
    """
    root = home()
    for name, folder in (("PLUMBLINE_HOME", str(root)), ("PREFECT_HOME", os.environ.get("PREFECT_HOME", ""))):
        if unfit := unfit_signs(folder):
            raise ConfigError(f"{name} {folder!r}: {unfit} cannot be in the path of a database; choose another folder")
    drop_overrides()
    require_usable(os.environ)
    spare_loopback(os.environ)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"PLUMBLINE_HOME {root}: cannot be created ({error.strerror}); point it at a folder that you may write"
        ) from error
    set_defaults()


def set_defaults() -> None:
    """Set the variables that are not set yet, so that every library uses the home and sends no telemetry.

    Importing a flow or a task does this, so that nothing is written to the user's own home before a run is prepared.
    """
    root = home()
    warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")  # `prepare_environment` makes it
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name, folder in (
        ("PREFECT_HOME", "prefect"),
        ("HF_HUB_CACHE", "hub"),
        ("HF_XET_CACHE", "hub/xet"),
        ("HF_ASSETS_CACHE", "hub/assets"),
        ("HF_DATASETS_CACHE", "hub/datasets"),
        ("HF_MODULES_CACHE", "hub/modules"),
        ("HF_EVALUATE_CACHE", "hub/evaluate"),
        ("MPLCONFIGDIR", "matplotlib"),
    ):
        os.environ.setdefault(name, str(root / folder))
