"""What goes wrong on the way to a store: a connection that is cut, rights that are missing, a disk that is full."""

import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError

from alignment.errors import StoreError
from alignment.remote.objects import Bucket
from alignment.remote.store import RemoteStore
from tests.alignment.remote.refusing import refusing


def writing(calls: list[str]) -> Callable[[Path], dict[str, int]]:
    def fill(folder: Path) -> dict[str, int]:
        calls.append("computed")
        for number in range(3):
            (folder / f"{number}.bin").write_bytes(bytes([number]) * 300_000)
        return {"files": 3}

    return fill


def test_a_connection_that_is_cut_in_mid_upload_loses_nothing(line, address, tmp_path, monkeypatch):
    store, upload = RemoteStore(Bucket(address), tmp_path / "a"), Bucket.upload
    calls: list[str] = []

    def cut(bucket: Bucket, file: Path, name: str) -> None:
        line.left = 100_000 if name.endswith("1.bin") else line.left
        upload(bucket, file, name)

    monkeypatch.setattr(Bucket, "upload", cut)
    with pytest.raises(StoreError, match=r"what is finished is kept on this machine") as raised:
        store.write("pairs", "k1", writing(calls))
    assert raised.value.transient
    assert "\n" not in str(raised.value)
    line.left = -1
    monkeypatch.setattr(Bucket, "upload", upload)
    assert store.find("pairs", "k1") is None
    ref = store.write("pairs", "k1", writing(calls))
    assert calls == ["computed"]
    assert ref.counts == {"files": 3}
    store.garbage(delete=True)
    assert len(list(store.bucket.listing("files"))) == 3


def test_a_connection_that_is_cut_for_a_moment_is_not_noticed(line, address, tmp_path):
    store = RemoteStore(Bucket(address), tmp_path / "a")
    store.write("pairs", "k1", writing([]))
    line.left = 0
    threading.Timer(0.5, setattr, (line, "left", -1)).start()
    assert store.find("pairs", "k1") is not None


DROPPED = "Generic S3 error: Error performing GET http://127.0.0.1 in 280µs - HTTP error: error sending request"


def test_a_request_that_met_a_closed_connection_is_sent_again(address, monkeypatch, tmp_path):
    """Which object_store takes for final: what it says then is raised here once before each request."""
    store = RemoteStore(Bucket(address), tmp_path / "a")
    dropped: list[str] = []
    for name in ("get", "put", "delete"):
        sends = getattr(obstore, name)

        def drops(*arguments: Any, name: str = name, sends: Any = sends, **options: Any) -> Any:
            dropped.append(name)
            if dropped.count(name) % 2:
                raise GenericError(DROPPED)
            return sends(*arguments, **options)

        monkeypatch.setattr(obstore, name, drops)
    ref = store.write("pairs", "k1", writing([]))
    assert (found := store.find("pairs", "k1")) is not None
    assert found.digest == ref.digest
    elsewhere = RemoteStore(store.bucket, tmp_path / "b").find("pairs", "k1")
    assert elsewhere is not None
    assert elsewhere.path.joinpath("2.bin").exists()
    store.bucket.delete(each.name for each in list(store.bucket.listing("files")))
    assert set(dropped) == {"get", "put", "delete"}


def test_a_listing_goes_on_where_its_connection_was_lost(address, monkeypatch):
    bucket = Bucket(address)
    for number in range(5):
        bucket.note(f"files/{number}")
    lists = obstore.list

    def cut(*arguments: Any, **options: Any) -> Iterator[Any]:
        pages = iter(lists(*arguments, chunk_size=2, **options))
        yield next(pages)
        if "offset" not in options:
            raise GenericError(DROPPED)
        yield from pages

    monkeypatch.setattr(obstore, "list", cut)
    assert [each.name for each in bucket.listing("files")] == [f"files/{number}" for number in range(5)]


def test_a_bucket_without_rights_is_one_line_before_anything_is_computed(address, monkeypatch, tmp_path):
    with refusing() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        store = RemoteStore(Bucket(address), tmp_path)
        needs = pytest.raises(StoreError, match="refused; the credentials of the environment need the rights")
        with needs as raised, store.lock("pairs", "k1"):
            raise AssertionError("it began to compute")
        assert not raised.value.transient
        with pytest.raises(StoreError, match="refused"):
            store.find("pairs", "k1")


@pytest.fixture
def small_files() -> Iterator[None]:
    """A disk that takes no file of more than 100 kB."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_without_room_for_a_copy_is_one_line_and_leaves_no_half_of_it(machine, request):
    machine("a").write("pairs", "k1", writing([]))
    other = machine("b")
    request.getfixturevalue("small_files")
    with pytest.raises(StoreError, match=r"cannot write .*: File too large; nothing half-written was kept"):
        other.fetch("pairs", "k1")
    assert list((other.root / ".draft").iterdir()) == []
    assert not (other.root / "pairs").exists()
