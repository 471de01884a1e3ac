"""The stage store: a stage is there whole or not at all, it is found by its key, and a full disk is one line."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import DataError, StoreError
from alignment.stages import files, marks
from alignment.stages.store import Store, digest, digest_file, digest_folder, write_json

FULL = "nothing half-written was kept. Free some space or point PLUMBLINE_HOME at another disk, then run again"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def writing(text: str, name: str = "rows.txt") -> Callable[[Path], dict[str, int]]:
    """A stage that writes one file."""

    def fill(folder: Path) -> dict[str, int]:
        (folder / name).write_text(text)
        return {"rows": len(text)}

    return fill


def failing(error: BaseException) -> Callable[[Path], dict[str, int]]:
    """A stage that writes half of its file and fails."""

    def fill(folder: Path) -> dict[str, int]:
        (folder / "half").write_text("ha")
        raise error

    return fill


def left(store: Store) -> list[str]:
    """Every file below the store's root but the marks of processes."""
    files = sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())
    return [file for file in files if not file.startswith(".used/")]


# Whole or not at all


def test_a_stage_is_found_after_it_was_written(store):
    written = store.write("pairs", "k1", writing("abc"))
    found = store.find("pairs", "k1")
    assert found is not None
    assert (written.cached, found.cached) == (False, True)
    assert found.model_copy(update={"cached": False}) == written
    assert found.path == store.root / "pairs" / "k1"
    assert found.counts == {"rows": 3}
    assert (found.path / "rows.txt").read_text() == "abc"


def test_what_was_never_written_is_not_found_and_looking_makes_nothing(store):
    assert store.find("pairs", "k1") is None
    assert not store.root.exists()


def test_other_keys_and_other_stages_are_not_found(store):
    store.write("pairs", "k1", writing("abc"))
    assert store.find("pairs", "k2") is None
    assert store.find("samples", "k1") is None


def test_a_folder_without_a_manifest_is_not_a_stage(store):
    (store.root / "pairs" / "k1").mkdir(parents=True)
    assert store.find("pairs", "k1") is None


@pytest.mark.parametrize("error", [ValueError("no"), DataError("no"), KeyboardInterrupt()], ids=repr)
def test_a_stage_that_fails_leaves_nothing_and_raises_what_it_raised(store, error):
    with pytest.raises(type(error)) as raised:
        store.write("pairs", "k1", failing(error))
    assert raised.value is error
    assert left(store) == []
    assert store.find("pairs", "k1") is None


def test_a_stage_that_failed_can_be_written_later(store):
    with pytest.raises(ValueError, match="no"):
        store.write("pairs", "k1", failing(ValueError("no")))
    assert store.write("pairs", "k1", writing("abc")).counts == {"rows": 3}


def test_while_a_stage_is_filled_it_is_not_found(store):
    def fill(folder: Path) -> dict[str, int]:
        assert store.find("pairs", "k1") is None
        assert ".draft" in folder.parts
        return {}

    store.write("pairs", "k1", fill)
    assert left(store) == ["pairs/k1/manifest.json"]


def test_of_two_writers_one_wins_and_both_get_its_result(store):
    """The second writer finishes while the first still fills, as two processes may."""
    inner: list[Any] = []

    def fill(folder: Path) -> dict[str, int]:
        inner.append(store.write("pairs", "k1", writing("first to finish")))
        return writing("too late")(folder)

    outer = store.write("pairs", "k1", fill)
    assert outer == inner[0]
    assert (outer.path / "rows.txt").read_text() == "first to finish"
    assert left(store) == ["pairs/k1/manifest.json", "pairs/k1/rows.txt"]


def test_debris_in_the_way_is_named_and_not_taken_for_a_stage(store):
    """Such as what is left of a folder whose deletion was interrupted."""
    folder = store.root / "pairs" / "k1"
    folder.mkdir(parents=True)
    (folder / "rows.txt").write_text("old")
    with pytest.raises(StoreError) as raised:
        store.write("pairs", "k1", writing("new"))
    assert str(raised.value) == (
        f"stage store: {folder} is in the way and holds no manifest.json; delete it, then run again"
    )
    assert left(store) == ["pairs/k1/rows.txt"]


# The manifest


def test_the_manifest_tells_where_the_stage_came_from(store):
    ref = store.write("pairs", "k1", writing("abc"), inputs={"parents": {"scores": "k0"}, "config": {"max_pairs": 0}})
    manifest = json.loads((ref.path / "manifest.json").read_text())
    assert datetime.fromisoformat(manifest.pop("written")).tzinfo is not None
    assert manifest.pop("seconds") >= 0
    assert manifest == {
        "stage": "pairs",
        "key": "k1",
        "digest": ref.digest,
        "counts": {"rows": 3},
        "inputs": {"parents": {"scores": "k0"}, "config": {"max_pairs": 0}},
    }


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"digest": 1, "counts": {"a": "many"}, "seconds": 0}'])
def test_a_manifest_that_cannot_be_read_is_named_with_the_way_out(store, text):
    ref = store.write("pairs", "k1", writing("abc"))
    (ref.path / "manifest.json").write_text(text)
    with pytest.raises(StoreError) as raised:
        store.find("pairs", "k1")
    message = str(raised.value)
    assert message.startswith(f"stage store: {ref.path}/manifest.json is not readable (")
    assert message.endswith(f"); delete {ref.path} to compute it again")
    assert "\n" not in message


# Digests


def test_the_digest_is_that_of_the_content_whatever_the_key(store):
    one, same, other = (
        store.write("pairs", key, writing(text)) for key, text in (("a", "abc"), ("b", "abc"), ("c", "abd"))
    )
    assert one.digest == same.digest != other.digest


def test_the_digest_of_a_folder_knows_names_and_subfolders(tmp_path):
    def build(name: str, files: dict[str, str]) -> str:
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return digest_folder(tmp_path / name)

    one = build("one", {"a": "1", "b/c": "2"})
    assert one == build("same", {"b/c": "2", "a": "1", "manifest.json": "{}"})
    assert one != build("renamed", {"a": "1", "b/d": "2"})
    assert one != build("moved", {"a": "1", "c": "2"})
    assert one != build("changed", {"a": "1", "b/c": "3"})
    assert one != build("nested", {"a": "1", "b/c": "2", "b/manifest.json": "{}"})


def test_the_digest_of_a_file_is_its_sha_256(tmp_path):
    """`printf abc | sha256sum`, FIPS 180-2's first example."""
    (tmp_path / "f").write_text("abc")
    assert digest_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.floats(allow_nan=False) | st.none()))
def test_the_order_of_a_mapping_does_not_count(values):
    assert digest(values) == digest(dict(reversed(values.items())))


def test_values_of_different_kinds_have_different_digests():
    values = [1, "1", 1.5, None, True, [1], {"1": 1}, "", [], {}]
    assert len({digest(value) for value in values}) == len(values)


# Disks


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "No space left on device"),
    ],
    ids=["full", "quota", "read-only", "another library's own error"],
)
def test_a_disk_that_refuses_is_one_line_and_leaves_nothing(store, error, reason):
    with pytest.raises(StoreError) as raised:
        store.write("pairs", "k1", failing(error))
    assert str(raised.value) == f"stage store: cannot write {store.root}/pairs/k1: {reason}; {FULL}"
    assert raised.value.__cause__ is error
    assert left(store) == []


def test_a_disk_that_fills_up_at_the_last_file_leaves_nothing(store, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write("pairs", "k1", writing("abc"))
    assert left(store) == []


def test_a_work_folder_that_cannot_be_made_is_one_line(store, monkeypatch):
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError) as raised:
        store.work("policy", "k1")
    assert str(raised.value) == f"stage store: cannot write {store.root}/.work/policy-k1: Permission denied; {FULL}"


def test_a_refused_permission_counts_only_below_the_store(store):
    inside = PermissionError(errno.EACCES, "Permission denied", str(store.root / "x"))
    with pytest.raises(StoreError, match=r"cannot write .*Permission denied"):
        store.write("pairs", "k1", failing(inside))
    with pytest.raises(PermissionError, match="/data/reviews"):
        store.write("texts", "k1", failing(PermissionError(errno.EACCES, "Permission denied", "/data/reviews.csv")))


def test_other_errors_keep_their_type(store):
    with pytest.raises(FileNotFoundError):
        store.write("pairs", "k1", failing(FileNotFoundError(errno.ENOENT, "No such file or directory")))


# Several processes


def test_one_computes_while_the_other_waits_and_finds_it(store):
    computed: list[int] = []
    together = threading.Barrier(2)

    def compute(number: int) -> None:
        together.wait()
        with store.lock("policy", "k1"):
            if store.find("policy", "k1") is None:
                computed.append(number)
                time.sleep(0.1)
                store.write("policy", "k1", writing("abc"))

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 1
    assert left(store) == ["policy/k1/manifest.json", "policy/k1/rows.txt"]


def test_the_lock_of_a_killed_process_is_free(store):
    code = f"""
import time; from pathlib import Path; from alignment.stages.store import Store
with Store(Path({str(store.root)!r})).lock("policy", "k1"):
    print("held", flush=True); time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        other.kill()
    started = time.monotonic()
    with store.lock("policy", "k1"):
        assert time.monotonic() - started < 5


def test_locks_of_other_stages_do_not_wait(store):
    with store.lock("policy", "k1"), store.lock("policy", "k2"), store.lock("before", "k1"):
        pass


def test_drafts_of_dead_processes_are_swept(store):
    with subprocess.Popen(["true"]) as gone:
        pass
    drafts = store.root / ".draft"
    (here, _), old = marks.this_process().rsplit("@", 1), time.time() - 30 * 86_400
    for name, age in (
        (f"pairs-k1@{here}@{gone.pid}@aa", time.time()),
        (f"pairs-k1@{here}@{os.getpid()}@bb", old),
        ("pairs-k1@elsewhere@1@cc", old),
        ("pairs-k1@elsewhere@1@dd", time.time()),
    ):
        (drafts / name).mkdir(parents=True)
        os.utime(drafts / name, (age, age))
    store.write("pairs", "k1", writing("abc"))
    assert sorted(path.name.rpartition("@")[2] for path in drafts.iterdir()) == ["bb", "dd"]


@pytest.mark.parametrize("other", [{"space": "pid:[1]"}, {"boot": "another"}])
def test_what_processes_of_another_container_of_the_same_name_use_or_write_is_kept(store, monkeypatch, other):
    with subprocess.Popen(["true"]) as gone:
        pass
    (here, _), host = marks.this_process().rsplit("@", 1), marks.this_host()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(marks, "this_host", lambda: host | other)
        (there, _), plain = marks.this_process().rsplit("@", 1), socket.gethostname()
    store.write("pairs", "k1", writing("abc"))
    for name in (here, there, plain):  # the last is what was written before names told of containers
        (store.root / ".draft" / f"pairs-k1@{name}@{gone.pid}@{name}").mkdir(parents=True)
        (store.root / ".used" / f"{name}@{gone.pid}").write_text(f"base/{name}\n")
    assert store.used() == {("pairs", "k1"), ("base", there), ("base", plain)}
    store.write("pairs", "k2", writing("abc"))
    assert {path.name.rpartition("@")[2] for path in (store.root / ".draft").iterdir()} == {there, plain}


@pytest.mark.parametrize("discarded", ["before it is read", "while it is read"])
def test_a_stage_that_is_discarded_meanwhile_is_not_damaged(store, monkeypatch, discarded):
    store.write("pairs", "k1", writing("abc"))
    (each,) = store.stored()
    if discarded == "before it is read":
        store.delete("pairs", "k1")
    else:
        found = files.files_of(store.root / "pairs" / "k1")
        monkeypatch.setattr(files, "files_of", lambda _: store.delete("pairs", "k1") or found)
    assert store.damage(each) == ""


def test_stages_are_discarded_by_the_start_of_their_key(store):
    for key in ("k1-0-8", "k1-8-16", "k2-0-8"):
        store.write("samples-parts", key, writing("abc"))
    store.discard("samples-parts", "k1-")
    store.discard("never written", "k1-")
    assert left(store) == ["samples-parts/k2-0-8/manifest.json", "samples-parts/k2-0-8/rows.txt"]


# Work that survives, JSON that is whole


def test_a_work_folder_survives_until_it_is_cleared(store):
    (store.work("policy", "k1") / "checkpoint").write_text("half way")
    with pytest.raises(ValueError, match="no"):
        store.write("policy", "k1", failing(ValueError("no")))
    assert (store.work("policy", "k1") / "checkpoint").read_text() == "half way"
    store.clear_work("policy", "k1")
    assert list(store.work("policy", "k1").iterdir()) == []


def test_json_is_replaced_whole_or_kept(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": [1, 2]})
    assert path.read_text() == '{\n  "a": [\n    1,\n    2\n  ],\n  "b": 1\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {1: 1, "a": 2})  # keys that cannot be sorted
    assert json.loads(path.read_text()) == {"a": [1, 2], "b": 1}
    assert [file.name for file in tmp_path.glob("*.json*")] == ["a.json"]


def test_earlier_results_are_the_newest_first_and_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for age, key in enumerate(("new", "old")):
        found = store.write("texts", key, lambda _: {"kept": 1}, spent=10.0 * age)
        os.utime(found.path / "manifest.json", (1_000 - age, 1_000 - age))
    (tmp_path / "texts" / "broken").mkdir()
    (tmp_path / "texts" / "broken" / "manifest.json").write_text("{", encoding="utf-8")
    assert [(each["key"], round(each["seconds"], -1)) for each in store.earlier("texts")] == [("new", 0), ("old", 10)]
    assert store.earlier("samples") == []
