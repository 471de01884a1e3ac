"""A store in a bucket of an S3 server, seen from two machines: two folders that share nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from alignment.remote import objects
from alignment.remote.leases import Leases
from alignment.remote.objects import Bucket
from alignment.remote.store import RemoteStore
from tests import s3
from tests.alignment.remote.cut_line import Line

Machine = Callable[..., RemoteStore]


@pytest.fixture(scope="session")
def server() -> Iterator[s3.S3]:
    with s3.serving() as found:
        yield found


@pytest.fixture
def address(server: s3.S3, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.bucket()}/some/prefix"


@pytest.fixture
def machine(address: str, tmp_path: Path) -> Machine:
    """The store as the machine of this name sees it; its leases end after two seconds."""

    def see(name: str, bound: int | None = None, **others: float) -> RemoteStore:
        bucket = Bucket(address)
        return RemoteStore(bucket, tmp_path / name, bound, Leases(bucket, seconds=2.0, poll=0.05), **others)

    return see


@pytest.fixture
def line(address: str, server: s3.S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """The line to the server, which requests give up after two seconds."""
    monkeypatch.setattr(objects, "RETRY_SECONDS", 2.0)
    where = urlsplit(server.url)
    made = Line((where.hostname or "", where.port or 0))
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    made.close()
