"""A store in a bucket of an S3 server, seen from two machines: two folders that share nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alignment.remote.leases import Leases
from alignment.remote.objects import Bucket
from alignment.remote.store import RemoteStore
from tests import s3

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

    def see(name: str, bound: int | None = None) -> RemoteStore:
        bucket = Bucket(address)
        return RemoteStore(bucket, tmp_path / name, bound, Leases(bucket, seconds=2.0, poll=0.05))

    return see
