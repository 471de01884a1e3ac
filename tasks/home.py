"""Where a run writes, and the environment that keeps every library's files there and its telemetry off."""

import os
from pathlib import Path

from alignment.errors import StoreError
from alignment.store import Store

QUIET_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "alignment",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; the bootstrap's automation ends runs that are silent for 90
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait take the other process's core
}


def home() -> Path:
    """`PLUMBLINE_HOME`, or `.plumbline` in the working directory; absolute."""
    return Path(os.environ.get("PLUMBLINE_HOME") or ".plumbline").absolute()


def store() -> Store:
    """The stage store of this home."""
    return Store(home() / "store")


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI` where it is set, else the SQLite database of this home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def prepare_environment() -> None:
    """Set what is not set yet; call it before Prefect, MLflow or a Hugging Face library is imported."""
    root = home()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"PLUMBLINE_HOME {root}: cannot be created ({error.strerror}); point it at a folder that you may write"
        ) from error
    for name, value in QUIET_DEFAULTS.items():
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
