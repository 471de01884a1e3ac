"""Names of flow runs: a run that nobody named is named after what it does; a name that a person gave is kept."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import prefect
from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.utilities.names import IGNORE_LIST

from tasks.run_log import run_logger

LETTER = re.compile(
    "(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|psi"
    "|omega)[0-9]*"
)
MARK = "andromedae."  # how the list of words begins that the form's script makes names of


_OURS: set[str] = set()
"""The names that runs of this process were given here, and no person gave."""


def name_run(what: str) -> str:
    """Name the run at work after what it does, and the time; returns its name, which stays if a person gave it.

    It may be called again once more is known. Empty outside of a run. If Prefect is unreachable, the run keeps the name
    that it has.
    """
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None:
        return ""
    if not is_free(run):
        return str(run.name)
    name = _ours(with_time(what))
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_name(run.id, name)
        run.name = name
    except (HTTPError, ObjectNotFound, OSError) as error:
        run_logger().warning("the run could not be named %r: %s", name, error)
    return str(run.name)


def unless_given(template: str) -> Callable[[], str]:
    """For a flow's `flow_run_name`: `template`, filled with the run's parameters, unless a person named the run."""

    def name() -> str:
        context = FlowRunContext.get()
        assert context is not None, "Prefect calls it in the context of a run"
        if (run := context.flow_run) is None or not is_free(run):
            return "" if run is None else str(run.name)
        return _ours(with_time(fill(template, context.parameters or {})))

    return name


def is_free(run: FlowRun) -> bool:
    """Whether no person named a run: its name was given here, or Prefect made it up.

    The form fills a name in itself, so that one of the server's kind, such as `hot-dog`, was typed there.
    """
    if run.name in _OURS or is_of_form(run.name):
        return True
    return is_of_server(run.name) and not (run.deployment_id and _is_from_form(run))


def _is_from_form(run: FlowRun) -> bool:
    """Whether Prefect's form for a run of one's own started it: that alone leaves the first state's message empty.

    Its quick run, a schedule, an automation and a client write something there, or nothing at all.
    """
    try:
        with get_client(sync_client=True) as client:
            states = client.read_flow_run_states(run.id)
    except (HTTPError, PrefectException, OSError) as error:
        run_logger().debug("how the run was started could not be read: %s", error)
        return False
    return bool(states) and min(states, key=lambda state: state.timestamp).message == ""


def _ours(name: str) -> str:
    _OURS.add(name)
    return name


def fill(template: str, parameters: Mapping[str, Any]) -> str:
    """A template such as `promote {model_name}`, filled."""
    return Formatter().vformat(template, (), parameters)


def with_time(what: str) -> str:
    """What a run does, with the time that tells it from the next one."""
    return f"{what}, {datetime.now().astimezone():%d %b %H:%M:%S}"


def is_of_server(name: str) -> bool:
    """Whether a name is one that Prefect's server makes up, of an adjective and an animal."""
    first, _, rest = name.partition("-")
    adjectives, animals = server_words()
    return first in adjectives and rest in animals


def is_of_form(name: str) -> bool:
    """Whether a name is one that Prefect's form fills in, of a letter and a star."""
    first, _, rest = name.partition("-")
    stars, endings = form_words()
    star, _, ending = rest.rpartition("-")
    return LETTER.fullmatch(first) is not None and (rest in stars or (star in stars and ending in endings))


@cache
def server_words() -> tuple[frozenset[str], frozenset[str]]:
    """The words that Prefect's server makes names of: the first ones, and the second ones."""
    from coolname.data import config

    rules: dict[str, Any] = dict(config)

    def words(name: str) -> set[str]:
        rule = rules[name]
        return {word for below in rule["lists"] for word in words(below)} if "lists" in rule else set(rule["words"])

    first, second = rules["an"]["lists"]
    return frozenset(words(first) - IGNORE_LIST), frozenset(words(second) - IGNORE_LIST)


@cache
def form_words() -> tuple[frozenset[str], frozenset[str]]:
    """The words that Prefect's form makes names of, and their endings, as its script lists them; none without it."""
    for script in sorted(Path(prefect.__ui_static_path__).glob("assets/index-*.js")):
        text = script.read_text(encoding="utf-8", errors="replace")
        if found := re.search(rf"`({MARK}[^`]*)`", text):
            endings = re.search(r"`(a\.b\.c\.[^`]*)`", text[found.end() :])
            listed = endings[1].split(".") if endings else []
            return frozenset(found[1].split(".")) - {""}, frozenset(listed)
    return frozenset(), frozenset()
