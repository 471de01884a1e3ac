"""The engine `endpoint`: a server that has the base model loaded draws the samples; its weights are checked.

What stands in `dialects.py` is what their documentation and source say; it was run against neither on a card.
"""

from asyncio import Event
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config import SamplingConfig
from alignment.config.engines import EndpointConfig
from alignment.endpoints import ask_each, in_a_loop, pause, shown
from alignment.errors import ConfigError
from alignment.sampling.dialects import DIALECTS, Body
from alignment.sampling.endpoint_client import Client
from alignment.sampling.engine import Completion, Request, engine, engine_version
from alignment.sampling.kept import KeptDraws
from alignment.sampling.outside import Answers, Remembered, require_same_weights, seed

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded

GRACE = 10.0
"""Seconds for which a request under way may still be answered when the work is to stop."""
NAME_LENGTH = 500
"""Of a model's name or a version, in characters."""
UNREADABLE = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError)


@engine("endpoint", common_random_numbers=False, any_model=False, keeps=True)
def endpoint(
    loaded: "Loaded",
    requests: Sequence[Request],
    config: SamplingConfig,
    progress: Callable[[int, int], None] | None = None,
    kept: Path | None = None,
) -> list[Completion]:
    """A server's samples; what it drew before a crash is in `kept`, and not asked for again.

    Raises ModelError where it has other weights than the model that is loaded here, and EndpointError or ConfigError as
    the client does.
    """
    settings = config.endpoint
    who = identity(settings)
    server = _Server(settings, who["model"])
    require_same_weights(
        loaded, server.scores, settings.max_difference, server.name, "sampling.endpoint.max_difference"
    )
    bodies = [
        server.dialect.sample(each.prompt, len(each.uniforms), seed(each), loaded.conventions.ends, config)
        for each in requests
    ]
    answers = Answers(requests, bodies, KeptDraws(kept, who), loaded=loaded, stop=config.stop, name=server.name)
    missing = answers.missing
    there = len(requests) - len(missing)

    def read(number: int, answer: Any) -> None:
        answers.take(missing[number], server.dialect.drawn(answer))

    def report(done: int) -> None:
        if progress is not None:
            progress(there + done, len(requests))

    if there:
        report(0)
    server.ask_all([bodies[place] for place in missing], read, report)
    return answers.completions()


@engine_version("endpoint")
def version(config: SamplingConfig) -> Mapping[str, Any]:
    """The kind of server, its version and the model's name there, which it is asked for unless they are configured."""
    return {"server": config.endpoint.server, **identity(config.endpoint)}


def identity(settings: EndpointConfig) -> dict[str, str]:
    """`model` and `version`, as configured or as the server says.

    Raises EndpointError where it does not answer, and ConfigError where it does not say, or serves several models.
    """
    if settings.model and settings.version:
        return {"model": settings.model, "version": settings.version}
    return _said(settings)


async def _asked(settings: EndpointConfig) -> dict[str, str]:
    async with Client(settings) as client:
        model = settings.model or _only_model(client.name, await client.look("models"))
        version = settings.version
        if not version:
            paths = DIALECTS[settings.server].version_paths
            answers = [await client.look(path) for path in paths]
            version = next(filter(None, map(_version_in, answers)), "")
    if not version:
        raise ConfigError(
            f"{client.name}: does not say which version it is ({', '.join(paths)}); check sampling.endpoint.server = "
            f"{settings.server}, or write the version into sampling.endpoint.version"
        )
    return {"model": model, "version": version}


_said = Remembered[EndpointConfig, dict[str, str]](lambda settings: in_a_loop(lambda _: _asked(settings)))


def _only_model(name: str, answer: Any) -> str:
    try:
        found = [each["id"] for each in answer["data"]]
    except UNREADABLE:
        found = []
    if len(found) != 1 or not _is_a_name(found[0]):
        there = f"serves {len(found)} models" if found else "does not say which model it serves (/models)"
        some = f", such as {shown(', '.join(map(str, found[:5])), '')}" if found else ""
        raise ConfigError(
            f"{name}: {there}{some}; name the one to sample in sampling.endpoint.model, and check "
            "sampling.endpoint.base_url, which mostly ends in /v1"
        )
    return str(found[0])


def _version_in(answer: Any) -> str:
    found = answer.get("version") if isinstance(answer, dict) else None
    return str(found).strip() if _is_a_name(found) else ""


def _is_a_name(found: Any) -> bool:
    return isinstance(found, str) and found.isprintable() and 0 < len(found) <= NAME_LENGTH


class _Server:
    """A server, and how it is asked."""

    def __init__(self, settings: EndpointConfig, model: str) -> None:
        self.settings, self.dialect = settings, DIALECTS[settings.server](model)
        self.name = f"sampling.endpoint at {settings.base_url}"

    def scores(self, texts: Sequence[Sequence[int]]) -> list[list[float | None]]:
        """The log-prob of each token of these texts."""
        found: dict[int, list[float | None]] = {}

        def read(number: int, answer: Any) -> None:
            found[number] = self.dialect.scored(answer, texts[number])

        self.ask_all([self.dialect.score(ids) for ids in texts], read)
        return [found[number] for number in range(len(texts))]

    def ask_all(
        self,
        bodies: Sequence[Body],
        read: Callable[[int, Any], None],
        report: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Send all requests, and read each answer with its number; `report` takes how many are read, and may raise."""
        done = 0

        async def work(unwanted: Callable[[], bool]) -> None:
            async with Client(self.settings) as client:

                async def ask(number: int, over: Event) -> None:
                    nonlocal done
                    answer = await client.ask(self.dialect.path, bodies[number], lambda seconds: pause(seconds, over))
                    if answer is None:
                        return
                    try:
                        read(number, answer)
                    except UNREADABLE as error:
                        raise client.not_understood(error, answer) from None
                    done += 1

                await ask_each(
                    range(len(bodies)),
                    ask,
                    concurrency=self.settings.concurrency,
                    unwanted=unwanted,
                    grace=GRACE,
                )

        if bodies:
            in_a_loop(work, lambda: report(done))
        report(len(bodies))
