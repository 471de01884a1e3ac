"""The client of a server that draws samples: JSON there and back, tried again where a failure may pass."""

import asyncio
import json
import os
from typing import Any, Self
from urllib.parse import urlsplit

from alignment.config.engines import EndpointConfig
from alignment.endpoints import MAY_PASS, QUOTA, MayPassError, Pause, is_local, pause_after, retry_after, shown
from alignment.errors import ConfigError, EndpointError

MOST_BYTES = 2**26
"""Of an answer; one with 100,000 tokens has some 10 MB."""
FIRST_LOOK = 10.0
"""Seconds for what a server says of itself."""
KEY_FIELD = "sampling.endpoint.api_key_env"


class Client:
    """A server, as an asynchronous context; the key is read from the environment alone."""

    def __init__(self, config: EndpointConfig) -> None:
        """Nothing is asked yet. Raises ConfigError where the key cannot be sent."""
        import httpx

        self.config, self.name = config, f"sampling.endpoint at {config.base_url}"
        local = is_local(config.base_url)
        self._key = os.environ.get(config.api_key_env, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(f"{KEY_FIELD} = {config.api_key_env}: the variable holds signs that no key has")
        self._unreachable = (httpx.HTTPError, httpx.InvalidURL)
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=config.timeout,  # for each piece that arrives; `_call` has one for the whole
            limits=httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
            trust_env=not local,
            verify=not (local and urlsplit(config.base_url).scheme == "http"),  # or certificates are read for nothing
        )

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def ask(self, path: str, body: dict[str, Any], pause: Pause) -> Any:
        """The answer to a request, tried again where a failure may pass; None where that came to be unwanted.

        `pause` waits for some seconds, and says whether to go on. Raises EndpointError where every try failed, and
        ConfigError where none can succeed.
        """
        for tried in range(self.config.retries + 1):
            try:
                return await self._call("POST", self._url(path), body, self.config.timeout)
            except MayPassError as failure:
                if tried == self.config.retries:
                    raise self._gave_up(str(failure)) from None
                if not await pause(pause_after(tried, failure)):
                    return None
        return None

    async def look(self, path: str) -> Any:
        """What the server says of itself there, asked once; None where it knows no such path.

        Raises EndpointError where it does not answer, and ConfigError where it takes no key, or this one not.
        """
        try:
            return await self._call("GET", self._url(path), None, min(FIRST_LOOK, self.config.timeout))
        except MayPassError as failure:
            error = EndpointError(
                f"{self.name}: {failure}; start it, or check sampling.endpoint.base_url; where sampling.endpoint.model "
                "and sampling.endpoint.version say what it will be, it need not run before something is drawn"
            )
            error.transient = True
            raise error from None

    def not_understood(self, error: Exception, answer: Any) -> EndpointError:
        """The error for an answer in which something is not as it should be."""
        return EndpointError(
            f"{self.name}: answers without what was asked for ({type(error).__name__} {self._shown(str(error))} in "
            f"{self._shown(json.dumps(answer))}); check sampling.endpoint.server = {self.config.server}, and that its "
            "version is one that the documentation names"
        )

    def _url(self, path: str) -> str:
        """A path behind the base URL, or one from the server's root, which begins with a slash."""
        if path.startswith("/"):
            return f"{self.config.base_url.removesuffix('/v1')}{path}"
        return f"{self.config.base_url}/{path}"

    async def _call(self, method: str, url: str, body: Any, within: float) -> Any:
        data = bytearray()
        try:
            async with asyncio.timeout(within), self._client.stream(method, url, json=body) as response:
                async for piece in response.aiter_bytes():
                    data += piece
                    if len(data) > MOST_BYTES:
                        raise MayPassError(f"answers with more than {MOST_BYTES:,} bytes")
        except TimeoutError:
            raise MayPassError(f"gave no answer in {within:g} s") from None
        except self._unreachable as error:
            raise MayPassError(f"could not be reached ({self._shown(str(error)) or type(error).__name__})") from None
        text = data.decode(errors="replace")
        if method == "GET" and response.status_code in (404, 405):
            return None
        if not response.is_success:
            raise self._refusal(response.status_code, response.headers, text)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise MayPassError(f"answers with what is no JSON ({self._shown(text)})") from None

    def _refusal(self, status: int, headers: Any, text: str) -> Exception:
        """What a status other than success says."""
        error = _error_in(text)
        said = self._shown(error.get("message") or text) or "no message"
        if status in (401, 403):
            has_key = f"does not take the key in {self.config.api_key_env}" if self._key else "wants a key"
            return ConfigError(
                f"{self.name}: {has_key} ({status} {said}); set the environment variable {self.config.api_key_env}, or "
                f"name another in {KEY_FIELD}"
            )
        if status == 402 or error.get("code") in QUOTA or error.get("type") in QUOTA:
            return EndpointError(
                f"{self.name}: the account's quota is used up ({said}); raise it there, then run again"
            )
        if status in MAY_PASS or status >= 500:
            return MayPassError(f"answers {status} ({said})", retry_after(headers))
        return ConfigError(
            f"{self.name}: answers {status} ({said}); check sampling.endpoint.base_url, which mostly ends in /v1, "
            f"sampling.endpoint.model and sampling.endpoint.server = {self.config.server}"
        )

    def _gave_up(self, reason: str) -> EndpointError:
        times = f"{self.config.retries + 1} times" if self.config.retries else "once"
        gave_up = EndpointError(
            f"{self.name}: {reason}, {times}; check sampling.endpoint.base_url, and that it runs and is not asked too "
            "much (sampling.endpoint.concurrency, timeout, retries), then run again: what it drew is kept"
        )
        gave_up.transient = True
        return gave_up

    def _shown(self, text: str) -> str:
        return shown(text, self._key)


def _error_in(text: str) -> dict[str, Any]:
    """The error object of an answer with a message in it, empty where there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    error = found.get("error", found) if isinstance(found, dict) else {}
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) and isinstance(error.get("message"), str) else {}
