"""A run's page in Prefect while it goes on: two artifacts of the flow run and its log, kept up by a thread.

The thread writes every few seconds at most, so that the work never waits for it, and what it cannot write it leaves.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.runtime import flow_run

from alignment.errors import Interrupted, PlumblineError
from tasks import artifacts, sentences
from tasks.progress import Event, Progress, StageProgress
from tasks.run_log import run_logger

EVERY = 4.0  # seconds between two updates of the artifacts
LINE_EVERY = 30.0  # seconds of a stage at work between two lines of the log
FIRST_LINE_AFTER = 5.0  # seconds until a stage at work is told of at all
PATIENCE = 10.0  # seconds that a call to Prefect may take
END_WITHIN = 5.0  # seconds that a run waits for the last update
KEPT = "What is finished is kept in the store"
GO_ON = f"{KEPT}, and a training goes on from its last checkpoint: press Retry, or run it again"

_PAGE: ContextVar["RunPage | None"] = ContextVar("_PAGE", default=None)


def page_of_run() -> "RunPage | None":
    """The page of the run that this is called in; None outside of any."""
    return _PAGE.get()


@contextmanager
def run_page(about: Mapping[str, str]) -> Iterator["RunPage"]:
    """Keep up the page of the flow run at work; `about` says in Markdown what it is about."""
    page = RunPage(about, flow_run.id or "", run_logger())
    token = _PAGE.set(page)
    page.start()
    try:
        yield page
    except BaseException as error:
        page.outcome = page.outcome or stopped(page.progress, error)
        raise
    finally:
        page.end()
        _PAGE.reset(token)


def stopped(progress: Progress | None, error: BaseException) -> str:
    """Why a run ended, at which stage, and how to go on; the reason first, since Prefect's cards cut the rest off."""
    stage = None if progress is None else progress.current
    where = f" at {sentences.place(progress, stage)}" if progress is not None and stage is not None else ""
    why = str(error).partition("\n")[0].rstrip(".") if isinstance(error, Exception) else ""  # a signal says nothing
    for_good = isinstance(error, PlumblineError) and not error.transient and not isinstance(error, Interrupted)
    return f"{f'{why}. ' if why else ''}Stopped{where}. {KEPT if for_good else GO_ON}."


class RunPage:
    """The artifacts `run` and `progress` of a flow run, and the lines of its log."""

    def __init__(self, about: Mapping[str, str], run: str, logger: Any) -> None:
        """Nothing is written before `start`, and no artifact without the id of a run."""
        self.about = about
        self.progress: Progress | None = None
        self.heading = ""
        self.outcome = ""
        self._run = UUID(run) if run else None
        self._logger = logger
        self._artifacts: dict[str, UUID] = {}
        self._shown: dict[str, tuple[Any, str]] = {}
        self._line = time.monotonic()
        self._told: StageProgress | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._keep_up,), name="run page", daemon=True)

    def start(self) -> None:
        """Begin to keep it up."""
        self._thread.start()

    def end(self) -> None:
        """Write it once more, and no more after that."""
        self._over.set()
        self._thread.join(END_WITHIN)

    def hear(self, event: Event) -> None:
        """Log what happened to a stage."""
        progress = self.progress
        if event.kind == "heading":
            self.heading = event.stage
            self._say(event.stage)
        if progress is None or event.stage.partition(" ")[0] not in progress.stages:
            return
        if event.kind in {"cached", "computed"}:
            self._say(sentences.finished(progress, event))
        elif event.kind == "waiting":
            self._say(sentences.at_work(progress))
            self._told = None  # a line soon after it goes on

    def _say(self, line: str) -> None:
        self._line = time.monotonic()
        self._logger.info("%s", line)

    def _keep_up(self) -> None:
        """Until the end: the artifacts where they have changed, and a line of the log where there was none for long."""
        try:
            # a client of its own: the one of the run's context is the run's thread's, and closed with it
            with get_client(httpx_settings={"timeout": PATIENCE}, sync_client=True) as client:
                while not self._over.is_set():
                    self._try(self._say_again)
                    self._try(lambda: self._show(client))
                    self._over.wait(EVERY)
                self._try(lambda: self._show(client))
        except Exception as error:  # noqa: BLE001 - as below
            self._logger.debug("the run's page is not kept up: %s", error)

    def _try(self, step: Callable[[], None]) -> None:
        """One step: the page is for looking at only, and the work goes on without it."""
        try:
            step()
        except Exception as error:  # noqa: BLE001
            self._logger.debug("the run's page could not be written: %s", error)

    def _say_again(self) -> None:
        """A line about the stage at work: soon after it began, and then now and then."""
        progress = self.progress
        if progress is None or progress.current is None or progress.current.state != "running":
            return
        wait = LINE_EVERY if progress.current is self._told else FIRST_LINE_AFTER
        if time.monotonic() - self._line >= wait:
            self._told = progress.current
            self._say(sentences.at_work(progress))

    def _show(self, client: SyncPrefectClient) -> None:
        if self._run is None:
            return
        for key, kind, data, description in self._wanted():
            if self._shown.get(key) == (data, description):
                continue
            if key in self._artifacts:
                artifacts.update(client, self._artifacts[key], data, description)
            else:
                self._artifacts[key] = artifacts.put(client, self._run, key, data, description, kind)
            self._shown[key] = (data, description)

    def _wanted(self) -> list[tuple[str, str, Any, str]]:
        progress, outcome = self.progress, self.outcome
        told = outcome or (sentences.at_work(progress) if progress is not None else "") or "begins"
        text = sentences.page(self.about, progress, self.heading)
        percent = 0.0 if progress is None else round(100 * progress.fraction(), 1)
        return [("run", "markdown", text, told), ("progress", "progress", percent, told)]
