"""What a flow does beside its waiting: in a thread that has the run's context, and a client of Prefect of its own."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread

from prefect.context import SyncClientContext

from tasks.run_log import run_logger

PATIENCE = 10.0  # seconds that a call to Prefect may take
END_WITHIN = 15.0  # seconds that the flow waits for what is being done at the end of its waiting


@contextmanager
def beside(act: Callable[[], None], waits: Iterable[float], what: str) -> Iterator[None]:
    """Call `act` after each of the `waits`, in seconds, until the block ends.

    What `act` raises is logged as that `what` failed, and the next call comes as if it had not. At the end of the block
    a call that has begun is waited for, and none begins any more.
    """
    over = Event()

    def keep_on() -> None:
        for seconds in waits:
            if over.wait(seconds):
                return
            try:
                # of other settings than the flow's: get_client would give the flow's client, which is its thread's
                with SyncClientContext(httpx_settings={"timeout": PATIENCE}):
                    act()
            except Exception as error:  # noqa: BLE001 - the flow waits on
                run_logger().warning("%s failed: %s", what, error)

    thread = Thread(target=copy_context().run, args=(keep_on,), name=what, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(END_WITHIN)
