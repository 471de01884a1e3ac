"""The log of the run at work."""

import logging
from typing import Any

from prefect import get_run_logger
from prefect.exceptions import MissingContextError


def run_logger() -> Any:
    """The logger of the current run, or an ordinary one outside of any."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("plumbline")
