"""Named objects that several machines see alike, written whole, and created or replaced only by the first to ask."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any, Protocol, TypeVar

from alignment.errors import ConfigError, GoneError
from alignment.remote.refusals import CREDENTIALS, Guard, line, require_bucket

PART_BYTES = 16 * 2**20  # of a multipart upload, of which S3 takes 10,000: files of up to 160 GB
REQUEST_SECONDS = 20.0  # until a request counts as failed; shorter than a lease, see alignment/remote/leases.py
RETRY_SECONDS = 30.0  # until a request that is tried again is given up
AGAIN_AFTER = 0.1  # seconds; twice as many each further time
AT_LEAST = 1.0  # seconds that object_store tries for, where it tries again by itself
UNSENT = "HTTP error: error sending request"
AT_ONCE = 16  # small requests
CONCURRENT = 4  # parts that are sent together

T = TypeVar("T")
Tag = Any
"""What a replacement must know of the version that it replaces, opaque to everybody else."""


@dataclass(frozen=True)
class Listed:
    """An object of a listing: its name, its size in bytes, and when it was written by the clock of its store."""

    name: str
    size: int
    modified: datetime


class Objects(Protocol):
    """What leases and the remote store need of a place; every method raises StoreError where it cannot be reached."""

    address: str
    """Where it is, for people."""

    def get(self, name: str) -> tuple[bytes, Tag] | None:
        """The content and version of an object, or None where there is none."""

    def create(self, name: str, data: bytes) -> Tag | None:
        """Write an object that is not there yet; None where it is."""

    def replace(self, name: str, data: bytes, tag: Tag) -> Tag | None:
        """Write an object in the place of the version `tag`; None where that is no longer the version."""

    def listing(self, prefix: str) -> Iterator[Listed]:
        """The objects below a folder, by name."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that is not there is no fault."""

    def discard(self, name: str, tag: Tag) -> None:
        """Delete the version `tag` of an object that nobody will ask for again."""


class Bucket:
    """The objects below a prefix of a bucket, by the Rust library `object_store`: S3, Google Cloud Storage, Azure.

    Credentials are looked for where the cloud's own tools do: in the environment, and for S3 in AWS's profiles where
    boto3 is installed. They are in no message.
    """

    def __init__(self, address: str) -> None:
        """Nothing is asked yet. Raises ConfigError where the address or the credentials' settings cannot be used."""
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise ConfigError(
                f"PLUMBLINE_STORE {address}: the package obstore is not installed; in Plumbline's folder: "
                "pip install -e '.[remote]'"
            ) from error
        self.address = address.rstrip("/")
        self._scheme, self._answered = address.partition("://")[0], Event()
        try:
            options: dict[str, Any] = _s3_options() if self._scheme == "s3" else {}
            endpoint = str(options.get("endpoint", ""))
            self._store = from_url(
                self.address,
                client_options={
                    "timeout": timedelta(seconds=REQUEST_SECONDS),
                    "connect_timeout": timedelta(seconds=5),
                    "allow_http": endpoint.startswith("http://"),
                },
                retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
                **options,
            )
        except Exception as error:
            raise ConfigError(
                f"PLUMBLINE_STORE {address}: cannot be used ({line(error)}); correct the address, or the credentials: "
                f"{CREDENTIALS[self._scheme]}"
            ) from error

    def get(self, name: str) -> tuple[bytes, Tag] | None:
        """See Objects."""
        import obstore

        def request() -> tuple[bytes, Tag]:
            found = obstore.get(self._store, name)
            return bytes(found.bytes()), _tag(found.meta)

        with self._guard("read", name):
            try:
                return _sent(request)
            except FileNotFoundError as error:
                require_bucket(error)
                return None

    def create(self, name: str, data: bytes) -> Tag | None:
        """See Objects."""
        return self._put(name, data, "create")

    def replace(self, name: str, data: bytes, tag: Tag) -> Tag | None:
        """See Objects."""
        return self._put(name, data, tag)

    def note(self, name: str) -> None:
        """Write an object that says all by its name."""
        self._put(name, b"", "overwrite")

    def _put(self, name: str, data: bytes, mode: Any) -> Tag | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._guard("write", name):
            try:
                return _tag(_sent(lambda: obstore.put(self._store, name, data, mode=mode, use_multipart=False)))
            except (AlreadyExistsError, PreconditionError):
                pass
            except FileNotFoundError as error:  # what was to be replaced is gone
                require_bucket(error)
                return None
        found = self.get(name)  # an answer that was lost on its way had the same request sent twice
        return found[1] if found is not None and found[0] == data else None

    def upload(self, file: Path | Iterator[bytes], name: str) -> None:
        """Write a file, or its pieces, as an object, in several parts where it is long.

        Where the iterator raises, so does this, and nothing is there.
        """
        import obstore

        def request() -> None:
            obstore.put(self._store, name, file, chunk_size=PART_BYTES, max_concurrency=CONCURRENT)

        with self._guard("write", name):
            if isinstance(file, Path):
                _sent(request)
            else:  # its pieces are gone once they are taken
                request()

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of an object, piece by piece; a connection that is lost is taken up where it was lost."""
        import obstore

        with self._guard("read", name):
            try:
                for piece in _sent(lambda: obstore.get(self._store, name)).stream(min_chunk_size=PART_BYTES):
                    yield bytes(piece)
            except FileNotFoundError as error:
                require_bucket(error)
                raise GoneError(
                    f"stage store: {self.address}/{name} is gone; was it pruned? Run again to compute it anew"
                ) from error

    def download(self, name: str, path: Path) -> str:
        """Write an object to a new file; returns the SHA-256 of its content."""
        found = sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            for piece in self.pieces(name):
                found.update(piece)
                stream.write(piece)
        return found.hexdigest()

    def fault(self, name: str, digest: str) -> str:
        """What of an object is not as its manifest says, which knows its `digest`, or nothing. All of it is read."""
        found = sha256()
        try:
            for piece in self.pieces(name):
                found.update(piece)
        except GoneError:
            return f"{self.address}/{name} is gone"
        if found.hexdigest() != digest:
            return f"{self.address}/{name} has the digest {found.hexdigest()[:12]}, its manifest {digest[:12]}"
        return ""

    def listing(self, prefix: str) -> Iterator[Listed]:
        """See Objects."""
        import obstore

        pages, last = iter(obstore.list(self._store, prefix)), None

        def page() -> Any:
            nonlocal pages
            try:
                return next(pages, None)
            except Exception:  # after which this listing would have come to its end
                pages = iter(obstore.list(self._store, prefix, offset=last))
                raise

        with self._guard("list", prefix):
            while (found := _sent(page)) is not None:
                for each in found:
                    last = each["path"]
                    yield Listed(last, each["size"], each["last_modified"])

    def read(self, listed: Iterable[Listed]) -> Iterator[tuple[Listed, bytes]]:
        """Small objects of a listing with their content, many at once; what is deleted meanwhile is left out."""
        listed = list(listed)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for each, found in zip(listed, pool.map(lambda each: self.get(each.name), listed), strict=True):
                if found is not None:
                    yield each, found[0]

    def delete(self, names: Iterable[str], again_for: float | None = None) -> None:
        """See Objects. `again_for` is how many seconds it may be tried again."""
        import obstore

        names = list(names)
        if names:
            with self._guard("delete", names[0]):
                _sent(lambda: obstore.delete(self._store, names), again_for)

    def discard(self, name: str, tag: Tag) -> None:  # noqa: ARG002 - no cloud's interface takes it everywhere
        """See Objects."""
        self.delete([name])

    def _guard(self, what: str, name: str) -> Guard:
        return Guard(f"stage store: cannot {what} {self.address}/{name}", self._scheme, self._answered)


def _sent(request: Callable[[], T], again_for: float | None = None) -> T:
    """Send a request, and send it again where object_store has not, although no answer has begun.

    So it does where a connection was kept open, and was closed just as the request was handed to it.
    """
    from obstore.exceptions import GenericError

    wait, ends = AGAIN_AFTER, time.monotonic() + (RETRY_SECONDS if again_for is None else again_for)
    while True:
        sent = time.monotonic()
        try:
            return request()
        except GenericError as error:
            if UNSENT not in str(error) or time.monotonic() > min(sent + AT_LEAST, ends - wait):
                raise
        time.sleep(wait)
        wait *= 2


def _tag(meta: Any) -> dict[str, str]:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name) is not None}


def _s3_options(environment: Callable[[str], str | None] = os.environ.get) -> dict[str, Any]:
    """The settings of AWS's tools that object_store does not read by itself."""
    options: dict[str, Any] = {}
    endpoint = environment("AWS_ENDPOINT_URL_S3") or environment("AWS_ENDPOINT_URL")
    if endpoint:
        options["endpoint"] = endpoint
    if not environment("AWS_ACCESS_KEY_ID"):
        try:
            from boto3.session import Session  # type: ignore[import-untyped]
            from obstore.auth.boto3 import Boto3CredentialProvider
        except ImportError:
            return options
        session = Session()
        if session.get_credentials() is not None:
            options["credential_provider"] = Boto3CredentialProvider(session)
            if session.region_name:
                options["region"] = session.region_name
    return options
