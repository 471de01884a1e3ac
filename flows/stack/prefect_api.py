"""Checks that the Prefect server at `PREFECT_API_URL` answers, and turns each of its failures into one line."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from alignment.errors import ConfigError, PlumblineError, StackError
from alignment.transient import causes
from tasks.addresses import reason, scheme_of, shown
from tasks.proxies import is_behind_proxy

WITHIN = 10.0  # seconds for an answer
HINTS = {
    "start": "start it, or unset PREFECT_API_URL to use a temporary server",
    "sign_in": "PREFECT_API_AUTH_STRING or PREFECT_API_KEY",
    "certificate": "PREFECT_API_SSL_CERT_FILE",
}
NOT_PREFECT = ValueError("what answers there is not Prefect's API; its address usually ends in /api")


def require_address(url: str) -> None:
    """Raise StackError if this is not a server's address, or nothing listens there; it takes seconds at most."""
    scheme = scheme_of(url)
    if scheme not in ("http", "https"):
        raise StackError(f"PREFECT_API_URL {shown(url)}: not an address that works; give http(s)://host:port/api")
    if is_behind_proxy(url):
        return
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[scheme]
    try:
        socket.create_connection((parts.hostname or "", port), WITHIN).close()
    except OSError as error:
        raise _refusal(url, error) from error


def check() -> None:
    """Make a request that needs Prefect's API and a permission. Raises StackError if it is not answered."""
    from httpx import HTTPError, HTTPStatusError, InvalidURL
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = os.environ["PREFECT_API_URL"]
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": WITHIN}) as client,
        ):
            client.read_flows(limit=1)
            client.raise_for_api_version_mismatch()
    except HTTPStatusError as error:
        raise _refusal(url, NOT_PREFECT if error.response.status_code in (404, 405) else error) from error
    except (HTTPError, InvalidURL, RuntimeError) as error:
        raise _refusal(url, error) from error
    except ValueError as error:  # not JSON, or not Prefect's
        raise _refusal(url, NOT_PREFECT) from error


@contextmanager
def guard(log: Path | None = None) -> Iterator[None]:
    """Turn a failed request to Prefect into one StackError; `log` is the log of a temporary server.

    A setting of Prefect that it cannot read, at its import, becomes a ConfigError.
    """
    try:
        yield
    except PlumblineError:
        raise
    except ValidationError as error:
        if not error.title.endswith("Settings"):
            raise
        first = error.errors()[0]
        name = "PREFECT_" + "_".join((error.title.removesuffix("Settings"), *map(str, first["loc"]))).strip("_").upper()
        raise ConfigError(
            f"Prefect's setting {name} or like it, {first['input']!r}: {first['msg']}; correct it"
        ) from error
    except Exception as error:
        failed = _failed_request(error)
        if failed is None:
            raise
        raise _refusal(os.environ.get("PREFECT_API_URL", ""), failed, log) from error


def _failed_request(error: BaseException) -> Exception | None:
    """The failed request to Prefect that caused an error, or None: requests to other hosts use the same client."""
    from httpx import HTTPError, InvalidURL

    ours = urlsplit(os.environ.get("PREFECT_API_URL", "")).netloc.rpartition("@")[2]
    for link in causes(error):
        if isinstance(link, InvalidURL):
            return link
        if isinstance(link, HTTPError) and link._request is not None:
            return link if link.request.url.netloc.decode() == ours else None
    return None


def _refusal(url: str, error: BaseException, log: Path | None = None) -> StackError:
    hints = HINTS | ({"start": f"the temporary server has ended; see {log}, then run again"} if log else {})
    return StackError(f"Prefect at PREFECT_API_URL {shown(url)}: {reason(error, **hints)}")
