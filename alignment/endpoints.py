"""What clients of model servers share: many requests at a time, which failures may pass, and the pause after one."""

import asyncio
import ipaddress
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

MAY_PASS = (408, 409, 425, 429)
QUOTA = ("insufficient_quota", "billing_hard_limit_reached")  # a 429 that no waiting ends
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds; doubled from try to try
LONGEST_ASKED = 300.0  # seconds that a server's Retry-After may ask for
SHOWN = 200  # characters of a server's message
LOOK_EVERY = 0.1  # seconds between two looks at whether the work is to stop

T = TypeVar("T")
R = TypeVar("R")
Pause = Callable[[float], Awaitable[bool]]


class MayPassError(Exception):
    """A failure that may pass, and the seconds that the server asks to wait for."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        """`reason` completes a sentence about the server."""
        super().__init__(reason)
        self.pause = pause


def pause_after(tried: int, failure: MayPassError) -> float:
    """The seconds to wait after a failed try, counted from 0: longer each time, and not the same for all."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**tried)
    jittered: float = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads requests
    return max(jittered, failure.pause)


def retry_after(headers: Mapping[str, Any]) -> float:
    """The seconds that a response asks to wait for, as a number or a date; 0 where it does not."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_ASKED)


def is_local(url: str) -> bool:
    """Whether an address is this machine's own, which no proxy can reach."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(text: str, key: str) -> str:
    """What a server said, short, on one line, without signs that move a terminal, and without the key."""
    said = " ".join(text.split())
    said = (said.replace(key, "***") if key else said)[:SHOWN]
    return "".join(sign if sign.isprintable() else "?" for sign in said)


async def ask_each(
    items: Sequence[T],
    ask: Callable[[T, asyncio.Event], Awaitable[None]],
    *,
    concurrency: int,
    unwanted: Callable[[], bool],
    grace: float,
) -> None:
    """Have so many items at a time asked for, until all are, one fails, or the work is `unwanted`.

    Then the event that `ask` gets is set, and requests that are under way have `grace` seconds left. Raises the first
    failure.
    """
    over, waiting = asyncio.Event(), iter(items)

    async def worker() -> None:
        for item in waiting:
            if over.is_set():
                return
            await ask(item, over)

    workers = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(items)))]
    pending = set(workers)
    while pending and not over.is_set():
        ended, pending = await asyncio.wait(pending, timeout=LOOK_EVERY, return_when=asyncio.FIRST_EXCEPTION)
        if unwanted() or any(task.exception() for task in ended):
            over.set()
    if pending:
        _, late = await asyncio.wait(pending, timeout=grace)
        for task in late:
            task.cancel()
    for error in await asyncio.gather(*workers, return_exceptions=True):
        if isinstance(error, Exception):
            raise error


async def pause(seconds: float, over: asyncio.Event) -> bool:
    """Wait, unless the work comes to its end; whether to go on."""
    try:
        await asyncio.wait_for(over.wait(), seconds)
    except TimeoutError:
        return True
    return False


def in_a_loop(
    work: Callable[[Callable[[], bool]], Coroutine[Any, Any, R]], look: Callable[[], None] = lambda: None
) -> R:
    """The result of a coroutine, in an event loop of its own: a notebook's thread has one already.

    `look` is called again and again meanwhile, and may raise: the work, which is given a function that says so, is
    unwanted from then on, as it is when somebody interrupts.
    """
    unwanted = False
    with ThreadPoolExecutor(1, "endpoint") as thread:
        working = thread.submit(lambda: asyncio.run(work(lambda: unwanted)))
        try:
            while not wait([working], LOOK_EVERY).done:
                look()
        except BaseException:
            unwanted = True
            raise
        return working.result()
