"""Finds or starts the Prefect and MLflow servers that a command uses."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console

from alignment.errors import ConfigError
from tasks.home import home
from tasks.importing import collector_paused


@contextmanager
def servers_for_a_flow(console: Console | None = None, *, own_process: bool = True) -> Iterator[None]:
    """A Prefect server and an MLflow, both checked; with a console, it shows the stages of the flow meanwhile.

    They are those of the environment, else those of the stack that is up in this home, else a temporary Prefect server
    and this home's MLflow database. Slow imports run while the server starts. In a command's `own_process` the garbage
    collector then looks no more through what was imported; in somebody else's, what is garbage stays theirs.
    """
    from flows.stack.clients import join
    from flows.stack.prefect_server import prefect_server

    join(home())
    with prefect_server(home()) as wait_for_server:
        with collector_paused():
            from flows.align import connect
            from flows.cli.progress import stage_lines

        with nullcontext() if console is None else stage_lines(console):
            connect()
            wait_for_server()
            if own_process:
                gc.freeze()
            try:
                yield
            finally:
                if own_process:
                    gc.unfreeze()


def require_prefect() -> None:
    """Use a Prefect server that runs already. Raises ConfigError if there is none, StackError if it does not answer."""
    from flows.stack import prefect_api
    from flows.stack.clients import join

    join(home())
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError("no Prefect server: set PREFECT_API_URL, or start one with `plumbline up`")
    prefect_api.require_address(os.environ["PREFECT_API_URL"])
    prefect_api.check()
