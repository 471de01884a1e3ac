"""The console that commands print to, and the libraries' messages kept out of it."""

import logging
import os
import warnings

from rich.console import Console

WIDTH = 110  # columns of the result if the output is not a terminal


def make_console() -> Console:
    """A console of the terminal's width, or wide enough for the tables if the output is not a terminal."""
    console = Console(emoji=False)
    return console if console.is_terminal else Console(width=WIDTH, emoji=False)


def quieten(debug: bool = False) -> None:
    """Keep the libraries' messages out of the terminal, unless to debug; Prefect's UI and MLflow still get theirs."""
    if debug:
        return
    warnings.simplefilter("ignore")
    quieten_libraries()


def quieten_libraries() -> None:
    """Keep the libraries' logs off the console, but no warning of Python's; call it before they are imported."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
