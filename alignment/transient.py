"""Decides which errors may be gone at the next attempt: those of networks and busy servers, not of data or disks."""

import errno
import socket
import sqlite3
import ssl
from collections.abc import Iterator

from alignment.errors import PlumblineError

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES}
NETWORK = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ESTALE, errno.EIO, socket.EAI_AGAIN}
CLIENTS = {  # package and class, so that none of them is imported for this
    "httpx.TransportError",
    "httpx2.TransportError",
    "requests.ConnectionError",
    "requests.Timeout",
    "requests.RetryError",
    "requests.ChunkedEncodingError",
    "urllib3.HTTPError",
    "aiohttp.ClientConnectionError",
}
MLFLOW_BUSY = {"TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED"}
FOR_GOOD = {"huggingface_hub.OfflineModeIsEnabled"}


def is_transient(error: BaseException | None) -> bool:
    """Whether the error, or what caused it, may be gone at the next attempt."""
    chain = list(causes(error))
    return not any(_stays(link) for link in chain) and any(_may_pass(link) for link in chain)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what caused it, what caused that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _stays(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return not _is_locked(error)
    full = isinstance(error, OSError) and error.errno in DISK
    return full or isinstance(error, ssl.SSLCertVerificationError) or bool(_names(error) & FOR_GOOD)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, PlumblineError):
        return error.transient
    if isinstance(error, ConnectionError | TimeoutError) or _is_locked(error):
        return True
    if isinstance(error, OSError) and error.errno in NETWORK:
        return True
    status = getattr(getattr(error, "response", None), "status_code", 0)
    busy = status == 429 or status >= 500 or getattr(error, "error_code", "") in MLFLOW_BUSY
    return busy or bool(_names(error) & CLIENTS)


def _is_locked(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _names(error: BaseException) -> set[str]:
    return {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
