"""A store in a bucket: a stage is there whole or not at all for every machine, and nothing is computed twice."""

import errno
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignment.errors import ConfigError, StoreError
from alignment.remote.objects import Bucket
from alignment.remote.opening import copies_of, open_store
from alignment.remote.store import RemoteStore
from alignment.stages.store import MANIFEST, StageRef, Store, digest_folder


def writing(text: str, name: str = "rows.txt") -> Callable[[Path], dict[str, int]]:
    """A stage that writes one file in its folder and one below it."""

    def fill(folder: Path) -> dict[str, int]:
        (folder / "model").mkdir()
        (folder / name).write_text(text)
        (folder / "model" / "weights").write_bytes(text.encode() * 3)
        return {"rows": len(text)}

    return fill


def never(_: Path) -> dict[str, int]:
    raise AssertionError("it was computed again")


def names(store: RemoteStore) -> list[str]:
    """Every object but the notes of who uses what, with attempts' names left out."""
    found = [each.name for each in store.bucket.listing("")]
    return sorted(
        "/".join(part for part in name.split("/") if len(part) != 32) for name in found if not name.startswith("used/")
    )


# Whole or not at all, on every machine


def test_what_one_machine_wrote_the_other_finds_and_fetches(machine):
    written = machine("a").write("pairs", "k1", writing("abc"), inputs={"parents": {"scores": "d0"}})
    found = machine("b").find("pairs", "k1")
    assert found is not None
    assert (found.digest, found.counts, found.seconds) == (written.digest, {"rows": 3}, written.seconds)
    assert (written.cached, found.cached) == (False, True)
    assert found.folder != written.folder


def test_a_stage_is_fetched_when_its_path_is_asked_for_and_not_before(address, tmp_path, machine):
    machine("a").write("pairs", "k1", writing("abc"))
    store = open_store(address, tmp_path / "home")
    found = store.find("pairs", "k1")
    assert found is not None
    assert not found.folder.exists()
    assert (found.path / "rows.txt").read_text() == "abc"
    assert (found.path / "model" / "weights").read_text() == "abc" * 3
    assert digest_folder(found.path) == found.digest
    assert json.loads((found.path / MANIFEST).read_text())["counts"] == {"rows": 3}


def test_who_wrote_a_stage_need_not_fetch_it(machine, monkeypatch):
    store = machine("a")
    monkeypatch.setattr(Bucket, "pieces", never)
    ref = store.write("pairs", "k1", writing("abc"))
    store.fetch("pairs", "k1")
    assert (ref.folder / "rows.txt").read_text() == "abc"


def test_what_was_never_written_is_not_found(machine):
    assert machine("a").find("pairs", "k1") is None
    assert not machine("a").has("pairs")


def test_a_stage_that_fails_leaves_nothing_in_the_bucket(machine):
    def fill(folder: Path) -> dict[str, int]:
        (folder / "half").write_text("ha")
        raise ValueError("no")

    store = machine("a")
    with pytest.raises(ValueError, match="no"):
        store.write("pairs", "k1", fill)
    assert names(store) == []
    assert store.write("pairs", "k1", writing("abc")).counts == {"rows": 3}


def test_of_two_writers_the_first_wins_and_both_get_its_result_and_nothing_else_is_left(machine):
    first: list[str] = []

    def fill(folder: Path) -> dict[str, int]:
        first.append(machine("a").write("pairs", "k1", writing("first to finish")).digest)
        return writing("too late")(folder)

    late = machine("b")
    ref = late.write("pairs", "k1", fill)
    assert ref.digest == first[0]
    late.fetch("pairs", "k1")
    assert (ref.folder / "rows.txt").read_text() == "first to finish"
    assert names(late) == ["files/pairs/k1/model/weights", "files/pairs/k1/rows.txt", "stages/pairs/k1.json"]


def test_of_two_writers_whose_uploads_overlap_the_first_wins_too(machine, monkeypatch):
    """The other one's manifest comes into being while this one's files are on their way."""
    upload, other = Bucket.upload, machine("b")

    def slow(bucket: Bucket, file: Path, name: str) -> None:
        monkeypatch.setattr(Bucket, "upload", upload)
        other.write("pairs", "k1", writing("first to finish"))
        upload(bucket, file, name)

    monkeypatch.setattr(Bucket, "upload", slow)
    store = machine("a")
    ref = store.write("pairs", "k1", writing("too late"))
    store.fetch("pairs", "k1")
    assert (ref.folder / "rows.txt").read_text() == "first to finish"
    assert len(names(store)) == 3


def test_stages_of_keys_that_begin_alike_are_told_apart(machine):
    store = machine("a")
    for key in ("k1", "k10"):
        store.write("pairs", key, writing(key))
    store.discard("pairs", "k10")
    assert store.find("pairs", "k10") is None
    assert machine("b").damage(next(iter(store.stored()))) == ""
    assert [each.key for each in store.stored()] == ["k1"]


def test_the_newest_manifests_come_first(machine):
    store = machine("a")
    for key in ("k1", "k2"):
        store.write("pairs", key, writing(key))
        time.sleep(1.1)  # S3 tells of seconds
    assert [manifest["key"] for manifest in machine("b").earlier("pairs", 1)] == ["k2"]
    assert store.has("pairs")


# Connections, rights, disks


def test_what_could_not_be_uploaded_is_uploaded_by_the_next_attempt_and_not_computed_again(machine, monkeypatch):
    store, upload = machine("a"), Bucket.upload

    def lost(bucket: Bucket, file: Path, name: str) -> None:
        if name.endswith("rows.txt"):
            error = StoreError("connection lost")
            error.transient = True
            raise error
        upload(bucket, file, name)

    monkeypatch.setattr(Bucket, "upload", lost)
    with pytest.raises(StoreError, match="connection lost"):
        store.write("pairs", "k1", writing("abc"))
    assert names(store) == []
    assert store.find("pairs", "k1") is None
    monkeypatch.setattr(Bucket, "upload", upload)
    assert machine("a").write("pairs", "k1", never).counts == {"rows": 3}
    machine("b").fetch("pairs", "k1")


def test_a_manifest_whose_answer_was_lost_counts(machine, monkeypatch):
    """The server has it, and the connection broke before it could say so."""
    create, store = Bucket.create, machine("a")

    def lost(bucket: Bucket, name: str, data: bytes) -> object:
        made = create(bucket, name, data)
        if name.startswith("stages/"):
            raise StoreError("connection lost")
        return made

    monkeypatch.setattr(Bucket, "create", lost)
    with pytest.raises(StoreError):
        store.write("pairs", "k1", writing("abc"))
    monkeypatch.setattr(Bucket, "create", create)
    ref = machine("a").write("pairs", "k1", never)
    machine("b").fetch("pairs", "k1")
    machine("a").fetch("pairs", "k1")
    assert (ref.folder / "rows.txt").read_text() == "abc"


def test_a_server_that_does_not_answer_is_one_line_that_may_pass(monkeypatch, tmp_path, server):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("alignment.remote.objects.RETRY_SECONDS", 0.5)
    with pytest.raises(StoreError, match=r"cannot read s3://gone/x/stages/pairs/k1.json: ") as raised:
        RemoteStore(Bucket("s3://gone/x"), tmp_path).find("pairs", "k1")
    assert raised.value.transient
    assert "\n" not in str(raised.value)
    assert "a-secret" not in str(raised.value)


@pytest.mark.parametrize("what", ["find", "write", "has"])
def test_a_bucket_that_does_not_exist_is_named(address, tmp_path, what):
    store = RemoteStore(Bucket("s3://no-such-bucket/x"), tmp_path)
    calls = {
        "find": lambda: store.find("pairs", "k1"),
        "write": lambda: store.write("pairs", "k1", writing("abc")),
        "has": lambda: store.has("pairs"),
    }
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/x.*: there is no such bucket; create it") as raised:
        calls[what]()
    assert not raised.value.transient


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/x", "is no address of a store"),
        ("s3://", "is no address of a store"),
        ("folder", "is no absolute path"),
    ],
)
def test_an_address_that_is_none_says_what_would_be_one(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        open_store(text, tmp_path)


@pytest.mark.parametrize("bound", ["0", "-1", "much", "nan", "inf"])
def test_a_bound_that_is_none_is_refused(bound, tmp_path):
    with pytest.raises(ConfigError, match="PLUMBLINE_STORE_CACHE_GB"):
        open_store("s3://bucket/x", tmp_path, bound)


def test_a_file_that_was_changed_in_the_bucket_is_not_used(machine):
    store = machine("a")
    store.write("pairs", "k1", writing("abc"))
    file = next(each.name for each in store.bucket.listing("files") if each.name.endswith("rows.txt"))
    store.bucket._put(file, b"xyz", "overwrite")
    with pytest.raises(StoreError, match=r"rows.txt has not the content that its manifest names"):
        machine("b").fetch("pairs", "k1")
    (each,) = store.stored()
    assert "rows.txt has the digest" in store.damage(each)


def test_a_manifest_cannot_name_a_file_outside_of_its_stage(machine):
    store = machine("a")
    store.write("pairs", "k1", writing("abc"))
    data, tag = store.bucket.get("stages/pairs/k1.json")
    told = json.loads(data)
    told["files"] = {"../../outside": {"sha256": "0", "bytes": 1}}
    store.bucket.replace("stages/pairs/k1.json", json.dumps(told).encode(), tag)
    with pytest.raises(StoreError, match="outside of its stage"):
        machine("b").fetch("pairs", "k1")


# The cache


def in_a_part(store: Store, text: str) -> StageRef:
    """A stage that lists one part, both with this text."""
    part = store.write("samples-parts", "k1-0-8", writing(text))

    def listing(folder: Path) -> dict[str, int]:
        (folder / "parts.json").write_text(json.dumps([{"folder": "samples-parts/k1-0-8", "rows": {}}]))
        return writing(text)(folder)

    return store.write("samples", "k1", listing, inputs={"parents": {"samples-parts/k1-0-8": part.digest}})


def test_a_copy_of_what_was_deleted_and_came_out_otherwise_is_replaced(address, tmp_path, machine):
    """As on another GPU, after a file of it was damaged in the bucket; what has the old one is told so."""
    store, other = open_store(address, tmp_path / "home"), machine("b")
    old = in_a_part(store, "abc")
    for stage in ("samples", "samples-parts"):
        other.discard(stage, "k1")
    new = in_a_part(other, "otherwise")
    found = store.find("samples", "k1")
    assert found is not None
    assert found.digest == new.digest != old.digest
    part = found.path.parents[1] / "samples-parts" / "k1-0-8"
    assert [(folder / "rows.txt").read_text() for folder in (found.path, part)] == ["otherwise"] * 2
    with pytest.raises(StoreError, match="is not what this run has found"):
        _ = old.path


def test_the_copy_that_was_asked_for_last_stays(machine, monkeypatch):
    """Each copy has 400 bytes of files and a manifest of about as many more; the processes that used them are gone."""
    for key in ("k1", "k2", "k3"):
        machine("a").write("pairs", key, writing("x" * 100))
    small = machine("b", bound=2_000)
    for key in ("k1", "k2", "k1", "k3"):
        small.fetch("pairs", key)
        small.marks = small.cache.marks = type(small.marks)(small.root / ".used")
        for mark in small.marks.root.iterdir():
            mark.unlink()
        time.sleep(0.02)
    assert [(small.root / "pairs" / key).exists() for key in ("k1", "k2", "k3")] == [True, False, True]


def test_a_bound_that_the_disk_cannot_hold_is_said_once(tmp_path, monkeypatch, caplog):
    """1 GB is free and the copies have 0.5 GB: 1.5 GB fit, and 2 GB do not."""
    copies = copies_of("s3://bucket/full", tmp_path) / "base" / "k1"
    copies.mkdir(parents=True)
    (copies / "manifest.json").write_text("{}")
    with (copies / "weights").open("wb") as stream:
        stream.truncate(500_000_000 - 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000_000))
    for bound in ("1.5", "2", "2"):
        open_store("s3://bucket/full", tmp_path, bound)
    (told,) = caplog.messages
    assert told.startswith(f"PLUMBLINE_STORE_CACHE_GB 2: the disk of {copies.parents[1]} has room for 1.5 GB of copies")


def test_a_disk_that_is_full_of_copies_names_what_bounds_them(machine):
    def full(_: Path) -> dict[str, int]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"device; nothing half-written was kept\. Free some space, bound the copies"):
        machine("a").write("pairs", "k1", full)


def test_what_a_running_process_uses_is_not_evicted_and_a_warning_says_so(machine, caplog):
    for key in ("k1", "k2"):
        machine("a").write("pairs", key, writing("x" * 100))
    small = machine("b", bound=500)
    with caplog.at_level(logging.WARNING):
        small.fetch("pairs", "k1")
        small.fetch("pairs", "k2")
    assert (small.root / "pairs" / "k1" / MANIFEST).exists()
    assert "running processes use what is in it" in caplog.text


# Two machines


def test_two_machines_that_want_the_same_compute_it_once(machine):
    counted: list[str] = []

    def run(name: str) -> None:
        store = machine(name)
        with store.lock("pairs", "k1"):
            if store.find("pairs", "k1") is None:
                counted.append(name)
                time.sleep(0.3)
                store.write("pairs", "k1", writing("abc"))

    threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted) == 1


def test_what_was_paid_for_on_one_machine_is_there_on_the_other(machine):
    one, other = machine("a"), machine("b")
    with one.lock("scores", "k1"):
        (one.kept / "judge" / "ab").mkdir(parents=True)
        (one.kept / "judge" / "ab" / "abcd.json").write_text('{"answer": "7"}')
    with other.lock("scores", "k2"):
        assert (other.kept / "judge" / "ab" / "abcd.json").read_text() == '{"answer": "7"}'
    with one.lock("scores", "k3"):
        pass
    assert len(list(one.bucket.listing("kept"))) == 1


def test_what_a_process_uses_is_known_until_it_ends(machine):
    machine("a").write("pairs", "k1", writing("abc"))
    other = machine("b")
    other.find("pairs", "k1")
    assert machine("c").used() == {("pairs", "k1")}
    machine("a")._forget()
    other._forget()
    assert machine("c").used() == set()


# Death in mid-upload

WRITER = """
import os, sys, time
from pathlib import Path
from alignment.remote.opening import open_store

def fill(folder):
    for number in range(60):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * 200_000)
    print("filled", flush=True)
    return {"files": 60}

store = open_store(os.environ["PLUMBLINE_STORE"], Path(sys.argv[1]))
store.write("pairs", "k1", fill)
print("done", flush=True)
"""


def write_elsewhere(address: str, home: Path) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PLUMBLINE_STORE": address}
    return subprocess.Popen([sys.executable, "-c", WRITER, str(home)], env=environment, stdout=subprocess.PIPE)


@pytest.mark.full
def test_a_writer_killed_at_any_moment_leaves_a_whole_stage_or_none(address, tmp_path, machine):
    """Twenty moments, drawn from the time that an undisturbed writer takes; some of them are in the upload."""
    draw, moments = random.Random(15), {"before": 0, "in the upload": 0, "after": 0}
    with write_elsewhere(address, tmp_path / "undisturbed") as process:
        assert process.stdout is not None
        process.stdout.readline()
        begun = time.monotonic()
        process.stdout.readline()
        takes = time.monotonic() - begun
    machine("a").discard("pairs", "k1")
    for number in range(20):
        home = tmp_path / f"home-{number}"
        with write_elsewhere(address, home) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(draw.uniform(0.0, takes))
            process.send_signal(signal.SIGKILL)
        reader = machine(f"reader-{number}")
        found = reader.find("pairs", "k1")
        uploaded = next(reader.bucket.listing("files"), None) is not None
        moments["after" if found is not None else "in the upload" if uploaded else "before"] += 1
        if found is not None:
            reader.fetch("pairs", "k1")
            assert digest_folder(found.folder) == found.digest
        reader.garbage(delete=True)
        left = [each.name for each in reader.bucket.listing("") if each.name.startswith(("files/", "uploads/"))]
        assert len(left) == (0 if found is None else 60)
        reader.discard("pairs", "k1")
    assert moments["in the upload"] > 0, moments
