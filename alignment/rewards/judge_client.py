"""The client of a judge's endpoint: one request after the other failure is told apart from the next, or answered.

What may pass is tried again: no connection, no answer in time, 408, 409, 425, 429, 5xx, and a page in place of JSON.
What will not pass ends the run: a refused key, an unknown model, a used-up quota. What is refused of one text, as by a
filter or for its length, is returned.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from alignment.config import JudgeConfig
from alignment.endpoints import MAY_PASS, QUOTA, MayPassError, is_local, pause_after, retry_after, shown
from alignment.errors import ConfigError, EndpointError
from alignment.rewards.judge_answers import Answer

OF_THIS_TEXT = (400, 413, 422)


@dataclass(frozen=True)
class Refused:
    """The endpoint will not judge this text, and why."""

    reason: str


class Endpoint:
    """An OpenAI-compatible endpoint, as an asynchronous context; the key is read from the environment alone."""

    def __init__(self, config: JudgeConfig) -> None:
        """Raises ConfigError where the package `openai` is missing."""
        try:
            import openai
        except ImportError as error:
            raise ConfigError(
                "reward.judge: needs the package openai; install it with `uv pip install -e '.[judge]'`"
            ) from error
        self.config = config
        self._openai = openai
        self._key = os.environ.get(config.api_key_env, "").strip()
        self._client = openai.AsyncOpenAI(
            base_url=config.url,
            api_key=self._key or "none",  # the client wants one, and an endpoint without keys looks at none
            timeout=config.timeout,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not is_local(config.url)),
        )
        self._chat = self._client.chat.completions.with_raw_response  # imports for a while, in nobody's timeout

    async def __aenter__(self) -> Self:
        """The endpoint itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close its connections."""
        await self._client.close()

    async def answer(
        self, request: dict[str, Any], *, may_call: Callable[[], bool], pause: Callable[[float], Awaitable[bool]]
    ) -> Answer | Refused | None:
        """The answer to a request, tried again where a failure may pass; None where that came to be unwanted.

        `may_call` is asked before each call; `pause` waits for some seconds, and says whether to go on. Raises
        EndpointError where every try failed, and ConfigError where none can succeed.
        """
        for tried in range(self.config.retries + 1):
            if not may_call():
                return None
            try:
                return await self._call(request)
            except MayPassError as failure:
                if tried == self.config.retries:
                    raise self._gave_up(str(failure)) from None  # the cause may show the key
                if not await pause(pause_after(tried, failure)):
                    return None
        return None

    async def _call(self, request: dict[str, Any]) -> Answer | Refused:
        own = {name: value for name, value in request.items() if name not in ("model", "messages")}
        try:
            async with asyncio.timeout(self.config.timeout):  # the client's own is for each piece that arrives
                got = await self._chat.create(model=request["model"], messages=request["messages"], extra_body=own)
        except (TimeoutError, self._openai.APITimeoutError):
            raise MayPassError(f"gave no answer in {self.config.timeout:g} s") from None
        except self._openai.APIConnectionError as error:
            reason = self._shown(str(error.__cause__ or error)) or type(error.__cause__).__name__
            raise MayPassError(f"could not be reached ({reason})") from None
        except self._openai.APIStatusError as error:
            return self._refusal(error)
        return self._read(got.text)

    def _refusal(self, error: Any) -> Refused:
        """What a status other than success says: an error of some kind, or that this text alone is refused."""
        status, said = error.status_code, self._shown(_message(error))
        if status in (401, 403):
            has_key = f"does not take the key in {self.config.api_key_env}" if self._key else "wants a key"
            way_out = f"set the environment variable {self.config.api_key_env}, or name another in {_API_KEY_ENV}"
            raise ConfigError(f"{self._name}: {has_key} ({status} {said}); {way_out}") from None
        if status == 402 or error.code in QUOTA or error.type in QUOTA:
            raise EndpointError(
                f"{self._name}: the account's quota is used up ({said}); raise it there, then run again"
            ) from None
        if status in MAY_PASS or status >= 500:
            raise MayPassError(f"answers {status} ({said})", retry_after(error.response.headers)) from None
        if status in OF_THIS_TEXT:
            return Refused(f"{status} {said}")
        raise ConfigError(
            f"{self._name}: answers {status} ({said}); check reward.judge.model {self.config.model} and "
            "reward.judge.url, which mostly ends in /v1"
        ) from None

    def _read(self, body: str) -> Answer:
        try:
            found = json.loads(body)
        except ValueError:
            raise MayPassError(f"answers with what is no JSON ({self._shown(body)})") from None
        try:
            choice = found["choices"][0]
            message = choice["message"]
            content = message.get("content") or message.get("refusal") or ""
            text = content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content)
            usage = found.get("usage") or {}
            counted = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
            return Answer(text, str(choice.get("finish_reason") or ""), *counted)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise MayPassError(f"answers without a choice ({self._shown(body)})") from None

    def _gave_up(self, reason: str) -> EndpointError:
        times = f"{self.config.retries + 1} times" if self.config.retries else "once"
        gave_up = EndpointError(
            f"{self._name}: {reason}, {times}; check reward.judge.url, and that it runs and is not asked too much "
            "(reward.judge.concurrency, timeout, retries), then run again"
        )
        gave_up.transient = not self.config.max_calls  # another try of the stage would not know of these calls
        return gave_up

    @property
    def _name(self) -> str:
        return f"judge at {self.config.url}"

    def _shown(self, text: str) -> str:
        return shown(text, self._key)


_API_KEY_ENV = "reward.judge.api_key_env"


def _message(error: Any) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else body
    return str(message or error.response.text or error.response.reason_phrase)
