"""Where a stage computes: under GPU slots, on devices of this host that it holds, by a process of its own, or here.

The parts of a stage that one run computes, one after the other, share one place: a process is started once.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar, copy_context

from alignment.config import AlignConfig
from alignment.stages.launch import Worker
from alignment.stages.stage import Stage
from tasks.devices import bound, devices, require_devices
from tasks.run_log import run_logger
from tasks.slots import gpu_slot
from tasks.stopping import require_wanted, stopping_as_one

Place = AbstractContextManager[Worker | None]


def slots_of(stage: Stage, config: AlignConfig) -> int:
    """How many GPU slots a stage takes here: one for each process that has a device of its own."""
    slots = stage.slots(config)
    return max(slots, stage.processes(config)) if slots and devices() else slots


@contextmanager
def placed(
    stage: Stage, config: AlignConfig, slots: int, on_wait: Callable[[str], None], on_go: Callable[[], None]
) -> Iterator[Worker | None]:
    """Hold so many slots, and as many devices where this host has some; gives the process, or None: compute it here.

    Who was given its device, as a worker of a cluster, takes no slots and needs no other device. `on_wait` is told who
    holds what it waits for, `on_go` is called once a wait is over.
    """
    processes = stage.processes(config) if slots else 1
    names = devices() if slots else ()
    require_devices(stage.name, processes, names)
    with ExitStack() as held:
        if slots:
            held.enter_context(gpu_slot(slots, on_wait, on_go))
        if not names and processes == 1:
            yield None
            return
        found = held.enter_context(bound(processes if names else 0, names, require_wanted, on_wait, on_go))
        yield held.enter_context(Worker(found.names, processes, found.files))


@contextmanager
def one_place() -> Iterator[None]:
    """The parts that are computed inside share a place where they compute on a device: it is held until the end.

    Where one of them fails, or the run is stopped, those that are left stop as well.
    """
    shared = Shared()
    token = _SHARED.set(shared)
    try:
        with stopping_as_one():
            yield
    finally:
        _SHARED.reset(token)
        shared.end()


def give_up_place() -> None:
    """Hold no shared place while waiting for what another run holds, which may be waiting for this place."""
    if (shared := _SHARED.get()) is not None:
        shared.end()


def place_for(open_place: Callable[[], Place], *, is_shared: bool) -> Place:
    """The place of a stage, or of a part: one of its own, or the one that the parts share inside `one_place`."""
    shared = _SHARED.get() if is_shared and devices() else None
    return open_place() if shared is None else shared.use(open_place)


class Shared:
    """A place that is held from the first part that uses it to the end, or to the first that fails in it."""

    def __init__(self) -> None:
        """Nothing is held yet."""
        self._alone = threading.Lock()
        self._held: _Held | None = None

    @contextmanager
    def use(self, open_place: Callable[[], Place]) -> Iterator[Worker | None]:
        """The place, for one part at a time; opened where it is not held. Raises what opening it raises."""
        with self._alone:
            require_wanted()  # a part that was left over when the others ended opens nothing
            if self._held is None:
                self._held = _Held(open_place)
            try:
                yield self._held.worker
            except BaseException:
                self._close()
                raise

    def end(self) -> None:
        """Give up what is held once the part at work has let go of it, and wait until that is done."""
        with self._alone:
            self._close()

    def _close(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.close()


class _Held:
    """A place that one thread opens and closes: parts come from others, and a slot belongs to a thread."""

    def __init__(self, open_place: Callable[[], Place]) -> None:
        self._opened: Future[Worker | None] = Future()
        self._over = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._hold, open_place), name="place of parts")
        self._thread.start()
        self.worker = self._opened.result()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _hold(self, open_place: Callable[[], Place]) -> None:
        try:
            with open_place() as worker:
                self._opened.set_result(worker)
                self._over.wait()
        except BaseException as error:  # noqa: BLE001 - who asked for it raises it
            if not self._opened.done():
                self._opened.set_exception(error)
            else:  # the parts are finished; a slot that could not be given back ends by itself
                run_logger().warning("what held the place of these parts could not be given back: %s", error)


_SHARED: ContextVar[Shared | None] = ContextVar("_SHARED", default=None)
