"""The webhook receiver: MLflow calls it when an alias is set, and it checks a champion that was set by hand.

It is the one process of ours that lives on, and so shows Prometheus the metrics of the runs as well.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest

from alignment.config import PromotionConfig
from alignment.errors import PlumblineError, StackError
from flows.stack.metrics import StageMetrics
from tasks.home import home
from tasks.registry import webhook
from tasks.registry.promotion import reconcile, recorded_models
from tasks.registry.webhook import Deliveries, Refused

logger = logging.getLogger("plumbline")

BODY_WITHIN = 10.0  # seconds
Reconcile = Callable[[str, PromotionConfig], str]


def create_app(
    secret: bytes,
    policy: PromotionConfig,
    *,
    reconcile: Reconcile = reconcile,
    known: Callable[[], list[str]] | None = None,
    now: Callable[[], float] = time.time,
) -> FastAPI:
    """The receiver with `POST /webhook`, `GET /health` and, for Prometheus, `GET /metrics`.

    A message only triggers a check: what counts is the registry's state. `known` returns the models to check at the
    start, since MLflow may have called while the receiver was down.
    """
    deliveries = Deliveries(home() / "stack" / "deliveries.json", now)
    one_at_a_time = threading.Lock()
    registry = CollectorRegistry()
    registry.register(StageMetrics())
    requests = Counter("plumbline_webhook_requests", "Calls of the webhook.", ["status"], registry=registry)
    checks = Counter(
        "plumbline_champion_checks", "Champions checked, by what came of it.", ["result"], registry=registry
    )

    def check(name: str, policy: PromotionConfig) -> str:
        found = reconcile(name, policy)
        checks.labels(found).inc()
        return found

    def answer(content: dict[str, str], status: int = 200) -> JSONResponse:
        requests.labels(status).inc()
        return JSONResponse(content, status)

    def act(delivery: str, timestamp: float, name: str | None) -> str:
        with one_at_a_time:
            deliveries.refuse_known(delivery)
            found = check(name, policy) if name is not None else "ignored"
            deliveries.remember(delivery, timestamp)
            return found

    @asynccontextmanager
    async def catch_up(_: FastAPI) -> AsyncIterator[None]:
        if known is not None:
            threading.Thread(target=check_all, args=(known, check, policy), daemon=True).start()
        yield

    app = FastAPI(title="Plumbline's webhook receiver", lifespan=catch_up, openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/webhook")
    async def receive(request: Request) -> JSONResponse:
        try:
            body = await read_body(request)
            delivery, timestamp = webhook.verify(secret, request.headers, body, now())
            found = await run_in_threadpool(act, delivery, timestamp, webhook.subject(body))
        except Refused as refusal:
            logger.warning("webhook refused: %s", refusal)
            return answer({"refused": str(refusal)}, refusal.status)
        except PlumblineError as error:  # MLflow tries again after a 503
            logger.error("webhook: %s", error)
            return answer({"refused": "the registry could not be read or changed; try again"}, 503)
        return answer({"result": found})

    return app


async def read_body(request: Request) -> bytes:
    """The whole body. Raises Refused if it is too large (413) or too slow (408)."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > webhook.MAX_BODY:
        raise Refused(413, f"larger than {webhook.MAX_BODY} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WITHIN):
            async for chunk in request.stream():
                body += chunk
                if len(body) > webhook.MAX_BODY:
                    raise Refused(413, f"larger than {webhook.MAX_BODY} bytes")
    except TimeoutError as error:
        raise Refused(408, f"not whole within {BODY_WITHIN:.0f} s") from error
    return bytes(body)


def check_all(known: Callable[[], list[str]], reconcile: Reconcile, policy: PromotionConfig) -> None:
    """Check every known model; one that cannot be read now is checked with the next message about it."""
    try:
        names = known()
    except PlumblineError as error:
        logger.error("the registry could not be checked: %s", error)
        return
    for name in names:
        try:
            reconcile(name, policy)
        except PlumblineError as error:
            logger.error("models:/%s could not be checked: %s", name, error)


def serve(host: str, port: int, policy: PromotionConfig) -> None:
    """Run the receiver until it is stopped.

    Raises ConfigError if its secret is missing or weak, StackError if it cannot listen at that address.
    """
    import uvicorn

    app = create_app(webhook.read_secret(), policy, known=recorded_models)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:  # uvicorn would end the process with 3, the exit code of a refusal
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=kind).close()
    except (OSError, UnicodeError) as error:
        raise StackError(f"receiver at {host}:{port}: {error}; give another --host or --port") from error
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)
