"""Leases: one holds, the others wait; one that is no longer renewed is taken over, and its holder learns of it."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alignment.errors import Interrupted, StoreError
from alignment.remote import leases as module
from alignment.remote.folder import Folder
from alignment.remote.leases import Leases, is_over
from alignment.remote.objects import Bucket, Objects
from alignment.remote.shared import SharedStore


@pytest.fixture(params=["bucket", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """Where leases are: an S3 server, or a folder that is shared."""
    return Bucket(request.getfixturevalue("address")) if request.param == "bucket" else Folder(tmp_path / "shared")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holders whose process cannot be asked, as those of another machine."""
    monkeypatch.setattr(module, "is_alive", lambda pid: True)


# Objects


def test_an_object_is_created_by_the_first_alone(place):
    assert place.get("x") is None
    assert place.create("x", b"one") is not None
    assert place.create("x", b"two") is None
    assert place.get("x")[0] == b"one"


def test_of_two_that_replace_the_same_version_the_first_wins(place):
    tag = place.create("x", b"one")
    assert place.replace("x", b"two", tag) is not None
    assert place.replace("x", b"three", tag) is None
    assert place.get("x")[0] == b"two"


def test_a_version_that_is_long_gone_cannot_be_replaced(place):
    first = tag = place.create("x", b"0")
    for number in range(1, 4):
        tag = place.replace("x", str(number).encode(), tag)
    assert place.replace("x", b"late", first) is None
    assert place.get("x")[0] == b"3"


def test_of_many_that_replace_at_once_one_wins(place):
    tag, won = place.create("x", b"begin"), []

    def replace(number: int) -> None:
        if place.replace("x", f"by {number}".encode(), tag) is not None:
            won.append(number)

    threads = [threading.Thread(target=replace, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert place.get("x")[0] == f"by {won[0]}".encode()


def test_what_was_deleted_is_gone_and_need_not_be_there(place):
    place.create("below/x", b"one")
    assert [each.name for each in place.listing("below")] == ["below/x"]
    place.delete(["below/x", "below/y"])
    assert place.get("below/x") is None
    assert list(place.listing("below")) == []


# Leases


def test_one_holds_and_the_others_wait(place):
    leases, inside, most = Leases(place, seconds=2.0, poll=0.02), 0, 0
    turn = threading.Lock()

    def run() -> None:
        nonlocal inside, most
        with leases.hold("x", "busy"):
            with turn:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            with turn:
                inside -= 1

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_lease_that_is_renewed_outlasts_its_seconds(place, elsewhere):
    leases = Leases(place, seconds=0.6, poll=0.05)
    asked: list[None] = []

    def wanted() -> None:
        asked.append(None)
        if len(asked) > 30:
            raise Interrupted("enough")

    with leases.hold("x", "busy") as held:
        with pytest.raises(Interrupted), leases.hold("x", "busy", wanted):
            raise AssertionError("two hold it")
        assert held.renew()


def test_one_that_is_not_renewed_is_taken_over_and_its_holder_learns_of_it(place, elsewhere, monkeypatch):
    monkeypatch.setattr(module.Lease, "_keep", lambda self: None)  # a machine that stands still
    leases = Leases(place, seconds=0.3, poll=0.05)
    with leases.hold("x", "busy") as held:
        started = time.monotonic()
        with leases.hold("x", "busy") as taken:
            assert time.monotonic() - started >= 0.3
            assert not held.renew()
            assert held.lost
            assert taken.renew()


def test_a_lease_of_a_process_of_this_host_that_died_is_free_at_once(place):
    dying = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    place.create("x", module._bytes(module.owner() | {"pid": int(dying.stdout), "beat": 0, "renewed": module._now()}))
    started = time.monotonic()
    with Leases(place, seconds=60.0).hold("x", "busy"):
        assert time.monotonic() - started < 30


def test_one_of_a_process_number_of_another_host_is_not_taken_for_dead(place):
    """The same number may well be free here."""
    lease = module.owner() | {"pid": 2**22 - 1, "beat": 0, "renewed": module._now()}
    assert is_over(module._bytes(lease))
    assert not is_over(module._bytes(lease | {"boot": "another"}))
    assert is_over(module._bytes(lease | {"boot": "another", "renewed": "2020-01-01T00:00:00+00:00"}))


def test_a_lease_that_says_nothing_is_over(place):
    assert is_over(b"")
    assert is_over(b"[1]")
    assert is_over(b'{"renewed": "never", "pid": 1}')


def test_only_one_that_is_over_can_be_taken_without_waiting(place):
    leases = Leases(place)
    with leases.hold("x", "busy"):
        assert not leases.take("x")
    assert leases.take("x")
    assert not leases.take("y")


# A shared folder


def test_a_shared_folder_locks_by_leases_and_leaves_none(tmp_path):
    store = SharedStore(tmp_path / "shared")
    with store.lock("pairs", "k1"):
        assert [each.name for each in Folder(tmp_path / "shared" / ".leases").listing("")] == ["pairs-k1"]
        store.write("pairs", "k1", lambda folder: {"rows": 0})
    assert list(Folder(tmp_path / "shared" / ".leases").listing("")) == []
    assert SharedStore(tmp_path / "shared").find("pairs", "k1") is not None


def test_who_takes_a_lease_just_as_it_is_given_back_has_it(tmp_path):
    """The holder says that it is free, and deletes it then: not what another has written in between."""

    class Slow(Folder):
        def discard(self, name, tag):
            assert self.replace(name, b"another's", tag) is not None
            super().discard(name, tag)

    place = Slow(tmp_path)
    with Leases(place).hold("x", "busy", delete=True):
        pass
    assert (place.get("x") or (b"",))[0] == b"another's"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_shared_folder_that_cannot_be_written_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="must be one that you may write"), SharedStore(tmp_path).lock("pairs", "k1"):
        pass
