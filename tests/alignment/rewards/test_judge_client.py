"""The client of a judge's endpoint: how long it waits, which way it goes, and what it needs to be there."""

import asyncio
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from alignment.config import JudgeConfig
from alignment.endpoints import is_local
from alignment.errors import ConfigError, EndpointError
from alignment.rewards import judge_client
from alignment.rewards.judge_answers import Answer
from alignment.rewards.judge_rubric import request
from tests import endpoint as served
from tests.endpoint import Fault, serving


def pauses(endpoint: served.Endpoint, **judge: Any) -> tuple[Answer | judge_client.Refused | None, list[float]]:
    """What one request gives in the end, and the seconds of each pause, which are not waited for."""
    config = JudgeConfig(url=endpoint.url, model="grader", **judge)
    waited: list[float] = []

    async def ask() -> Answer | judge_client.Refused | None:
        async def pause(seconds: float) -> bool:
            waited.append(seconds)
            return True

        async with judge_client.Endpoint(config) as client:
            return await client.answer(request(config, "How good?"), may_call=lambda: True, pause=pause)

    return asyncio.run(ask()), waited


def first(count: int, fault: Fault) -> Callable[[int, str], Fault | None]:
    return lambda call, question: fault if call < count else None


def test_pauses_double_up_to_a_minute_and_are_not_the_same_for_all() -> None:
    with serving(served.Endpoint(fault=first(9, served.SERVER_ERROR))) as endpoint:
        answer, waited = pauses(endpoint, retries=9)
    assert isinstance(answer, Answer)
    longest = [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert len(waited) == len(longest)
    assert all(most / 2 <= seconds <= most for seconds, most in zip(waited, longest, strict=True))


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("2.5", 2.5, 2.5),
        ("in 200 s", 100, 200),  # as a date, from when the test runs
        ("86400", 300, 300),  # no longer than five minutes from try to try
        ("-5", 0.25, 0.5),
        ("soon", 0.25, 0.5),
    ],
)
def test_an_endpoint_may_ask_for_a_longer_pause(header: str, least: float, most: float) -> None:
    if header == "in 200 s":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=200), usegmt=True)
    with serving(served.Endpoint(fault=first(1, (429, {"retry-after": header}, "{}")))) as endpoint:
        _, (waited,) = pauses(endpoint)
    assert least <= waited <= most


def test_what_is_asked_is_tried_once_more_than_it_may_fail() -> None:
    with serving(served.Endpoint(fault=lambda call, question: served.CUT)) as endpoint:
        with pytest.raises(EndpointError, match=r"could not be reached \([^)]+\), once; check"):
            pauses(endpoint, retries=0)
        assert endpoint.calls == 1


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "Score: 3"}, "Score: 3"),
        ({"content": [{"type": "text", "text": "Score: "}, {"type": "text", "text": "3"}]}, "Score: 3"),
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"content": None}, ""),
    ],
)
def test_an_answer_s_text_is_found_in_each_of_its_forms(message: dict[str, Any], text: str) -> None:
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": None})
    with serving(served.Endpoint(fault=lambda call, question: (200, {}, body))) as endpoint:
        assert pauses(endpoint)[0] == Answer(text, "stop", 0, 0)


def test_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(served.Endpoint()) as endpoint:
        assert isinstance(pauses(endpoint, retries=0)[0], Answer)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.1.2.3/v1", True),
        ("http://localhost:11434/v1", True),
        ("http://[::1]:8000/v1", True),
        ("https://api.example.com/v1", False),
        ("http://10.0.0.7:8000/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://127.example.com/v1", False),
    ],
)
def test_an_address_of_this_machine_is_known_by_its_host(url: str, local: bool) -> None:
    assert is_local(url) == local


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(
        ConfigError, match=r"needs the package openai; install it with `uv pip install -e '\.\[judge\]'`"
    ):
        judge_client.Endpoint(JudgeConfig(model="grader"))
