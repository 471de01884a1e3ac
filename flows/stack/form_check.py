"""Checks what a person submits in Prefect's pages before a run is made of it, and answers with every fault at once.

The form asks twice: for errors to show at its fields, and then for the run. Prefect answers the first question from the
form's schema without its bounds, the second with one fault. Here both are answered from the configuration that the run
would have. Whatever goes wrong in the check itself leaves the answer to Prefect: a run checks its parameters again.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate

from alignment.config import AlignConfig, build_frontier, build_grid, frontier_configs
from alignment.errors import ConfigError, Fault, TrackingError
from flows.start_from import FIELD

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

RUN = re.compile(r"/api/deployments/(?P<deployment>[0-9a-f-]{36})/create_flow_run/?")
FIELDS = re.compile(r"/api/ui/schemas/validate/?")
PAGE = re.compile(r"/deployments/deployment/(?P<deployment>[0-9a-f-]{36})/run/?")
"""The page with the form; other pages ask for errors of parts of a form alone."""

LATER = (b'"workspace_variable"', b'"jinja"')
"""What values are called, in a request, that Prefect's server alone can fill in."""
WITHIN = 4.0  # seconds that a check may take
MOST = 2**20  # bytes of a request that is looked into
WITHOUT = (b"content-length", b"content-type", b"accept-encoding")
"""Headers of a submission that a question of ours about its deployment does not have."""
CONFLICT = 409  # Prefect's answer to parameters that are not valid

log = logging.getLogger(__name__)

LATER_ROUND = ":retrain"
"""How the entrypoint ends of the flow that starts from the champion, where there is one."""


class FormCheck:
    """An ASGI application that looks at what is submitted, and passes everything else on."""

    def __init__(self, app: Any) -> None:
        """`app` is Prefect's: an ASGI application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a submission with faults; pass on any other request, and one that cannot be checked."""
        if scope["type"] == "lifespan":  # so that whoever submits first does not wait for the imports
            asyncio.get_running_loop().run_in_executor(None, import_module, "flows.submission")
        deployment, of_fields = asked(scope)
        if not deployment:
            await self.app(scope, receive, send)
            return
        body = await _read(receive)
        faults: list[Fault] = []
        given: Mapping[str, Any] = {}
        try:
            found = json.loads(body)
            wanted = of_fields or found.get("enforce_parameter_schema") is not False
            if wanted and not any(word in body for word in LATER):
                given = found.get("values" if of_fields else "parameters") or {}
                faults = await asyncio.wait_for(self._look(scope, deployment, given), WITHIN)
        except Exception as error:  # noqa: BLE001 - the run checks again; a fault in here must not keep people from running
            log.warning("a form was not checked before its run (%s: %s)", type(error).__name__, error)
        if not faults:
            await self.app(scope, _again(body, receive), send)
        elif of_fields:  # valid, so that the form goes on to ask for the run, whose refusal it shows in a message
            await _answer(send, 200, {"valid": True, "errors": at_fields(faults, given)})
        else:
            await _answer(send, CONFLICT, {"detail": listed(faults)})

    async def _look(self, scope: Scope, deployment: str, given: Mapping[str, Any]) -> list[Fault]:
        found = await self._deployment(scope, deployment)
        asks = found.get("parameter_openapi_schema", {}).get("properties", {})
        if FIELD not in asks:
            return []
        values = hydrate({**found.get("parameters", {}), **given}, HydrationContext(raise_on_error=True))
        own_base = not str(found.get("entrypoint")).endswith(LATER_ROUND)
        return await asyncio.to_thread(faults_in, values, own_base, tuple(asks))

    async def _deployment(self, scope: Scope, deployment: str) -> dict[str, Any]:
        """What Prefect says of a deployment, to whoever asks now."""
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        path = f"/api/deployments/{deployment}"
        headers = [item for item in scope["headers"] if item[0] not in WITHOUT]
        request = {**scope, "method": "GET", "path": path, "raw_path": path.encode(), "headers": headers}
        await self.app(request, receive, send)
        if sent[0]["status"] != 200:
            return {}
        found: dict[str, Any] = json.loads(b"".join(message.get("body", b"") for message in sent[1:]))
        return found


def asked(scope: Scope) -> tuple[str, bool]:
    """The deployment that a request is about, empty for a request of another kind, and whether it asks about fields."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return "", False
    headers = dict(scope["headers"])
    if int(headers.get(b"content-length", b"0")) > MOST:
        return "", False
    if found := RUN.fullmatch(scope["path"]):
        return found["deployment"], False
    if FIELDS.fullmatch(scope["path"]):
        page = urlsplit(headers.get(b"referer", b"").decode("latin-1")).path
        if found := PAGE.fullmatch(page):
            return found["deployment"], True
    return "", False


def faults_in(parameters: Mapping[str, Any], own_base: bool = True, asks: Collection[str] = ()) -> list[Fault]:
    """Everything that would stop a run with these parameters; nothing where MLflow, which it starts from, is away.

    `own_base` is as in `faults_of`, and `asks` what the form has: a sweep's grid, or what a frontier tries, is more
    than one configuration, and each of them has to be one that can run.
    """
    from alignment.judging.grid import grid_configs
    from flows.submission import submission

    changes = {name: value for name, value in parameters.items() if name in AlignConfig.model_fields}
    try:
        found = submission(parameters.get(FIELD) or "", changes, called_here=False, own_base=own_base)
    except TrackingError as error:
        log.warning("a form was not checked before its run: %s", error)
        return []
    faults = list(found.faults)
    several: dict[str, tuple[Callable[..., Any], Callable[[AlignConfig, Any], Any]]] = {
        "grid": (build_grid, grid_configs),
        "frontier": (build_frontier, frontier_configs),
    }
    for name, (build, configs) in several.items():
        if name in asks:
            try:
                tried = build(**(parameters.get(name) or {}))
                if not found.faults:
                    configs(found.config, tried)
            except ConfigError as error:
                faults.append(Fault((name,), str(error)))
    return faults


def listed(faults: Iterable[Fault]) -> str:
    """Every fault on a line of its own, as Prefect's page shows them."""
    told = [fault.message for fault in faults]
    head = "One fault" if len(told) == 1 else f"{len(told)} faults"
    return "\n".join((f"{head}, nothing was started:", *(f"{at}. {text}" for at, text in enumerate(told, 1))))


def at_fields(faults: Iterable[Fault], given: Mapping[str, Any]) -> list[Any]:
    """The faults as a form of Prefect's takes them: each at its first field, or at the group that is closed over it."""
    errors: list[Any] = []
    for fault in faults:
        level: list[Any] = errors
        value: Any = given
        for name in fault.fields[0].split(".") if fault.fields else []:
            if not isinstance(value, Mapping):
                break
            below = next((each for each in level if isinstance(each, dict) and each["property"] == name), None)
            if below is None:
                below = {"property": name, "errors": []}
                level.append(below)
            level, value = below["errors"], value.get(name)
        level.append(fault.message)
    return errors


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read, then what comes after it."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


async def _answer(send: Send, status: int, value: Any) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
