"""Flows whose runs say how they ended: tagged as the deployments' are, and with the reason in their state's message."""

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from prefect import Flow, tags
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import FailedRun, MissingResult
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from alignment.errors import InputError, Interrupted, PlumblineError, PromotionError
from tasks.home import prepare_environment
from tasks.run_names import unless_given

R = TypeVar("R")

ALIGNMENT = ("plumbline", "alignment")
"""Tags of runs that compute a model; prefect.yaml has the same."""
REGISTRY = ("plumbline", "registry")
"""Tags of runs that concern a registered model."""

_CALLED_HERE: ContextVar[bool] = ContextVar("called_here", default=False)


def called_here() -> bool:
    """Whether this process called the flow, from the command line or Python, and no worker for a form or a request."""
    return _CALLED_HERE.get()


_BEGUN: ContextVar[bool] = ContextVar("begun", default=False)


def work_begins() -> None:
    """Say that the run at work now computes or records something: an error from here on is a failure of the run."""
    _BEGUN.set(True)


_ENDED: ContextVar[list[State[Any]] | None] = ContextVar("ended", default=None)
"""The state that the body of the flow at work has ended in, where it is one of ours."""


class NamedFlow(Flow[..., R]):
    """A flow whose runs have the tags of its deployment, however they are started, and its errors as their reason."""

    run_tags: Sequence[str] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it as any flow, in an environment that is prepared. Raises the error of a run that did nothing.

        The server knows a run's end without its result. Where its answer to that end was lost, as on a busy database,
        Prefect asks again and takes what the server knows; the result is the body's all the same.
        """
        prepare_environment()
        called = _CALLED_HERE.set(_CALLED_HERE.get() or FlowRunContext.get() is None)
        ended: list[State[Any]] = []
        holder = _ENDED.set(ended)
        try:
            with tags(*self.run_tags):
                result = super().__call__(*args, **kwargs)
        except (MissingResult, FailedRun):
            if not ended:
                raise
            result = ended[-1].result()
        finally:
            _ENDED.reset(holder)
            _CALLED_HERE.reset(called)
        if isinstance(result, State) and result.data is None and ended:
            result = result.model_copy(update={"data": ended[-1].data})
        is_state = isinstance(result, State) and result.is_completed()
        found = result.result(raise_on_failure=False) if is_state else result
        if isinstance(found, PlumblineError):
            raise found
        return result

    def with_options(self, **options: Any) -> Any:
        """A copy with other options, which is called in the same ways."""
        made: Any = super().with_options(**options)
        made.__class__ = type(self)
        made.run_tags = self.run_tags
        return made


def named_flow(name: str, run_tags: Sequence[str], *, run_name: str = "") -> Callable[[Callable[..., R]], NamedFlow[R]]:
    """Make a flow of a function. Its tasks run one at a time.

    `run_name` is a template of its parameters, such as `promote {model_name}`; a name that a person gave is kept.
    """

    def decorate(body: Callable[..., R]) -> NamedFlow[R]:
        named = unless_given(run_name) if run_name else None
        made: NamedFlow[R] = make(NamedFlow, body, name, run_tags, flow_run_name=named)
        return made

    return decorate


def make(kind: type[Any], body: Callable[..., Any], name: str, run_tags: Sequence[str], **options: Any) -> Any:
    """A flow of this kind, made of a function whose errors become the reason of the run's end."""
    runner: Any = ThreadPoolTaskRunner(max_workers=1)
    made = kind(with_reason(body), name=name, task_runner=runner, **options)
    made.run_tags = run_tags
    return made


def with_reason(body: Callable[..., R]) -> Callable[..., R | State[Any]]:
    """`body`, where an error of ours is not raised but ends the run in a state that says what is wrong.

    The state is Failed. What a person at a terminal asked for and cannot have, found before `work_begins`, is nothing
    that failed: it ends as NothingDone. The caller gets the error. An interruption is raised, as Prefect's own signals
    are.
    """

    @functools.wraps(body)
    def ended(*args: Any, **kwargs: Any) -> R | State[Any]:
        found: R | State[Any]
        begun = _BEGUN.set(False)
        try:
            found = body(*args, **kwargs)
        except Interrupted:
            raise
        except PlumblineError as error:
            reason = str(error).partition("\n")[0]
            if called_here() and not _BEGUN.get() and isinstance(error, InputError | PromotionError):
                found = Completed(name="NothingDone", message=reason, data=error)
            else:
                found = Failed(message=reason, data=error)
        finally:
            _BEGUN.reset(begun)
        if isinstance(found, State) and (kept := _ENDED.get()) is not None:
            kept.append(found)
        return found

    return ended
