"""Unfinished work in a bucket: another machine goes on from the newest, and a store that is lost stops nobody."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import Interrupted, StoreError
from alignment.remote import saving as module
from alignment.remote.objects import Bucket
from alignment.remote.snapshot import Snapshot, resumable
from alignment.remote.store import RemoteStore
from alignment.stages.store import StageRef
from tests.alignment.remote.training import KEY, STAGE, STEPS, compute
from tests.s3 import S3


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "it never came to that"
        time.sleep(0.02)
    return found


def kept(store: RemoteStore) -> Snapshot | None:
    """What the bucket has of the stage."""
    found = store.bucket.get(f"work/{STAGE}/{KEY}/manifest.json")
    return Snapshot.model_validate_json(found[0]) if found is not None else None


def objects(store: RemoteStore) -> list[str]:
    return [each.name for each in store.bucket.listing("work")]


def kept_step(store: RemoteStore) -> int:
    """The step of the checkpoint that the bucket has; 0 where it has none."""
    found = kept(store)
    steps = {int(name.split("/")[0].rpartition("-")[2]) for name in (found.files if found else {})}
    assert len(steps) <= 1, "only the newest is kept"
    return max(steps, default=0)


def until_kept(store: RemoteStore, step: int) -> None:
    until(lambda: kept_step(store) >= step)
    assert kept_step(store) == step


@contextmanager
def under_way(store: RemoteStore) -> Iterator[Path]:
    """The work folder of the stage, which this process computes."""
    with store.lock(STAGE, KEY):
        yield store.work(STAGE, KEY)


def leave(store: RemoteStore, files: Mapping[str, str]) -> None:
    """A stage that is stopped once its work folder has these files."""
    with suppress(Interrupted), under_way(store) as work:
        for name, text in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text)
        raise Interrupted("asked to")


def found_by(store: RemoteStore) -> dict[str, str]:
    """What a machine finds in the stage's work folder as it begins to compute it."""
    with under_way(store) as work:
        return {name: (work / name).read_text() for name in resumable(work)}


# What another machine goes on from


def test_what_a_stopped_stage_has_is_there_for_the_next_machine(machine):
    leave(machine("a"), {"checkpoint-4/model": "weights", "drawn.jsonl": "a line"})
    assert found_by(machine("b")) == {"checkpoint-4/model": "weights", "drawn.jsonl": "a line"}


def test_names_that_begin_with_a_dot_stay_where_they_are(machine):
    leave(
        machine("a"), {"drawn.jsonl": "x", ".scratch/pairs": "again", ".writing/checkpoint-8/model": "half", ".x": ""}
    )
    assert found_by(machine("b")) == {"drawn.jsonl": "x"}


def test_the_newer_one_takes_the_place_of_the_older_and_nothing_else_is_left(machine):
    store = machine("a", every=0.05)
    with under_way(store) as work:
        for step in (4, 8):
            (work / f".checkpoint-{step}").mkdir()
            (work / f".checkpoint-{step}" / "model").write_text(f"weights {step}")
            shutil.rmtree(work / f"checkpoint-{step - 4}", ignore_errors=True)
            (work / f".checkpoint-{step}").rename(work / f"checkpoint-{step}")
            until_kept(store, step)
        until(lambda: len(objects(store)) == 2)


def test_what_has_not_changed_is_uploaded_once(machine, monkeypatch):
    upload, sent = Bucket.upload, []

    def counted(bucket, file, name):
        sent.append(name)
        upload(bucket, file, name)

    monkeypatch.setattr(Bucket, "upload", counted)
    leave(machine("a"), {"evaluations/10": "long"})
    leave(machine("a"), {"evaluations/20": "longer"})
    leave(machine("b"), {"evaluations/30": "the longest"})
    assert len(sent) == 3
    assert sorted(found_by(machine("c"))) == ["evaluations/10", "evaluations/20", "evaluations/30"]


def test_a_file_that_grows_is_there_as_far_as_it_had_come(machine):
    """What an engine draws is written line by line, all the time."""
    store = machine("a", every=0.02)
    with under_way(store) as work, (work / "drawn.jsonl").open("w") as out:
        ends = time.monotonic() + 1.0
        while time.monotonic() < ends or kept(store) is None:
            out.write("a line\n")
            out.flush()
        found = kept(store)
        assert found is not None
        whole = store.bucket.get(f"work/{STAGE}/{KEY}/{found.files['drawn.jsonl'].object}")
    assert whole is None or ("a line\n" * 10**6).encode().startswith(whole[0])
    (each,) = store.underway()
    assert store.damage_underway(each) == ""


def test_a_machine_that_has_gone_on_by_itself_fetches_nothing(machine, monkeypatch):
    leave(machine("a"), {"checkpoint-4/model": "weights"})
    work = machine("a").root / ".work" / f"{STAGE}-{KEY}"
    (work / "checkpoint-8").mkdir()
    (work / "checkpoint-8" / "model").write_text("further")
    monkeypatch.setattr(Bucket, "download", None)
    assert sorted(found_by(machine("a"))) == ["checkpoint-4/model", "checkpoint-8/model"]


def test_a_machine_that_was_behind_takes_what_is_newer_in_the_place_of_its_own(machine):
    leave(machine("a"), {"checkpoint-4/model": "weights"})
    with under_way(machine("b")) as work:
        (work / "checkpoint-4").rename(work / "checkpoint-8")
    assert list(found_by(machine("a"))) == ["checkpoint-8/model"]


def test_a_machine_with_newer_work_keeps_its_own(machine):
    leave(machine("a"), {"checkpoint-4/model": "weights"})
    work = machine("b").work(STAGE, KEY)
    (work / "checkpoint-8").mkdir()
    (work / "checkpoint-8" / "model").write_text("later")
    assert found_by(machine("b")) == {"checkpoint-8/model": "later"}


def test_what_was_damaged_in_the_bucket_is_not_used_and_a_line_says_so(machine, caplog):
    store = machine("a")
    leave(store, {"checkpoint-4/model": "weights"})
    (file,) = (name for name in objects(store) if not name.endswith("manifest.json"))
    store.bucket._put(file, b"others", "overwrite")
    (each,) = store.underway()
    assert "has the digest" in store.damage_underway(each)
    assert found_by(machine("b")) == {}
    assert "is damaged or gone and is not used" in caplog.text
    leave(machine("b"), {"checkpoint-2/model": "anew"})
    assert found_by(machine("c")) == {"checkpoint-2/model": "anew"}


@pytest.mark.parametrize("text", [b"", b"[]", b'{"files": {}}'])
def test_a_manifest_that_says_nothing_is_as_none(machine, text):
    machine("a").bucket.create(f"work/{STAGE}/{KEY}/manifest.json", text)
    assert list(machine("a").underway()) == []
    leave(machine("a"), {"drawn.jsonl": "x"})
    assert found_by(machine("b")) == {"drawn.jsonl": "x"}


def test_a_manifest_cannot_name_a_file_outside_of_the_work_folder(machine):
    store = machine("a")
    leave(store, {"drawn.jsonl": "x"})
    name = f"work/{STAGE}/{KEY}/manifest.json"
    data, tag = store.bucket.get(name)
    store.bucket.replace(name, data.replace(b"drawn.jsonl", b"../../outside"), tag)
    with pytest.raises(StoreError, match="outside of its stage"):
        found_by(machine("b"))


# Who has lost its lease


def test_a_process_that_stalled_does_not_replace_what_the_next_one_has_kept(machine):
    """It was held up between its look at the folder and its manifest."""
    late = machine("late")
    with under_way(late) as work, late.lock("other", "k"):
        (work / "checkpoint-4").mkdir()
        (work / "checkpoint-4" / "model").write_text("late")
        lease = late._held[STAGE, KEY]
        lease._ended.set()  # it renews it no more
        lease._thread.join()
        leave(machine("next"), {"checkpoint-8/model": "weights"})
    assert found_by(machine("c")) == {"checkpoint-8/model": "weights"}


def test_a_process_that_stalled_behind_its_manifest_deletes_nothing_of_the_next_one(machine, monkeypatch):
    create, late = Bucket.create, machine("late")

    def stalls(bucket: Bucket, name: str, data: bytes) -> Any:
        made = create(bucket, name, data)
        if bucket is late.bucket and name == f"work/{STAGE}/{KEY}/manifest.json":
            lease._ended.set()  # it renews it no more
            lease._thread.join()
            leave(machine("next"), {"more": "y"})
        return made

    monkeypatch.setattr(Bucket, "create", stalls)
    with under_way(late) as work:
        lease = late._held[STAGE, KEY]
        (work / "drawn.jsonl").write_text("x")
    assert found_by(machine("c")) == {"drawn.jsonl": "x", "more": "y"}


def test_what_was_deleted_before_a_manifest_named_it_is_uploaded_again(machine, monkeypatch):
    """As by a prune, while this machine could not be heard of for so long that it counted as dead."""
    store, upload, sent = machine("a", every=0.05), Bucket.upload, []

    def lost(bucket: Bucket, file: Any, name: str) -> None:
        sent.append(name)
        if len(sent) == 2:
            bucket.delete(sent[:1])
            raise StoreError("the line is cut")
        upload(bucket, file, name)

    monkeypatch.setattr(Bucket, "upload", lost)
    with under_way(store) as work:
        (work / ".checkpoint-4").mkdir()
        for name in ("model", "optimizer"):
            (work / ".checkpoint-4" / name).write_text(name)
        (work / ".checkpoint-4").rename(work / "checkpoint-4")
        until(lambda: kept(store))
    assert found_by(machine("b")) == {"checkpoint-4/model": "model", "checkpoint-4/optimizer": "optimizer"}


def test_what_was_deleted_meanwhile_is_uploaded_again(machine):
    store = machine("a", every=0.05)
    with under_way(store) as work:
        (work / "drawn.jsonl").write_text("x")
        until(lambda: kept(store))
        store.unfinished.delete(STAGE, KEY)
        (work / "more").write_text("y")
        until(lambda: "more" in getattr(kept(store), "files", {}))
    assert found_by(machine("b")) == {"drawn.jsonl": "x", "more": "y"}


# list, verify, prune


def test_a_finished_stage_leaves_nothing_of_it(machine):
    store = machine("a")
    leave(store, {"checkpoint-4/model": "weights"})
    with store.lock(STAGE, KEY):
        store.write(STAGE, KEY, lambda out: {"files": len(list(store.work(STAGE, KEY).glob("checkpoint-*")))})
        store.clear_work(STAGE, KEY)
    assert objects(store) == []
    assert [each.key for each in store.stored()] == [KEY]


def test_it_is_listed_beside_the_stages_and_never_as_one(machine):
    store = machine("a")
    with under_way(store) as work:
        (work / "drawn.jsonl").write_text("four")
        with store.lock("other", "k"):
            assert list(store.underway()) == []
    (each,) = machine("b").underway()
    assert (each.stage, each.key, each.held) == (STAGE, KEY, False)
    assert 4 < each.size < 1_000
    assert list(store.stored()) == []
    assert not store.has(STAGE)
    assert store.find(STAGE, KEY) is None
    with store.lock(STAGE, KEY):
        assert next(machine("b").underway()).held


def test_what_nobody_can_go_on_from_is_garbage(machine):
    """Files of an upload that was broken off, and what is left of a stage that was finished."""
    store = machine("a")
    leave(store, {"drawn.jsonl": "x"})
    store.bucket.create(f"work/{STAGE}/{KEY}/{'0' * 32}", b"half")
    with store.lock(STAGE, KEY):
        assert machine("b").garbage(delete=True) == (0, 0)
    assert machine("b").garbage(delete=False) == (1, 4)
    assert machine("b").garbage(delete=True) == (1, 4)
    assert found_by(machine("b")) == {"drawn.jsonl": "x"}
    store.write(STAGE, KEY, lambda _: {})
    assert machine("b").garbage(delete=True)[0] == 1
    assert objects(store) == []


# A store that is lost


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_SECONDS", 2.0)


def test_a_connection_that_is_lost_in_mid_upload_is_one_line_and_the_work_goes_on(line, address, tmp_path, caplog):
    store = RemoteStore(Bucket(address), tmp_path / "a", every=0.05)
    with under_way(store) as work:
        (work / "checkpoint-4").mkdir()
        (work / "checkpoint-4" / "model").write_bytes(b"4" * 300_000)
        first = until(lambda: kept(store))
        line.left = 100_000
        (work / "checkpoint-4").rename(work / "checkpoint-8")
        (work / "checkpoint-8" / "model").write_bytes(b"8" * 300_000)
        until(lambda: line.left == 0)
        until(lambda: "stay on this machine alone" in caplog.text)
        time.sleep(3.0)  # it is tried again, and fails again
        line.left = -1
        assert kept(store) in (first, None) or kept_step(store) == 8
        until_kept(store, 8)
    told = [record.getMessage() for record in caplog.records if "stay on this machine alone" in record.getMessage()]
    assert len(told) == 1
    assert "\n" not in told[0]


def test_the_end_of_a_stage_that_failed_waits_for_its_last_upload_no_longer_than_that(machine, monkeypatch):
    monkeypatch.setattr(module, "LAST_SECONDS", 0.2)
    monkeypatch.setattr(module, "PART_BYTES", 1)
    read = module.Saving._pieces

    def slowly(*given: Any) -> Iterator[bytes]:
        for piece in read(*given):
            time.sleep(0.05)
            yield piece

    monkeypatch.setattr(module.Saving, "_pieces", slowly)
    began = time.monotonic()
    leave(machine("a"), {"drawn.jsonl": "x" * 10_000})
    assert time.monotonic() - began < 60
    assert kept(machine("a")) is None
    assert objects(machine("a")) == []


# Death of a training

TRAINING = """
import os, sys, time
from pathlib import Path
from alignment.remote.objects import Bucket
from alignment.remote.store import RemoteStore
from tests.alignment.remote.training import compute

def progress(done, total):
    time.sleep(0.3)

bucket = Bucket(os.environ["PLUMBLINE_STORE"])
slow = int(sys.argv[2])
if slow:
    upload, sent = Bucket.upload, []

    def hanging(bucket, file, name):
        sent.append(name)
        if len(sent) > slow:
            print("in the upload", flush=True)
            time.sleep(600)
        upload(bucket, file, name)

    Bucket.upload = hanging
compute(RemoteStore(bucket, Path(sys.argv[1]), every=0.1), progress)
"""


@contextmanager
def training(address: str, home: Path, hangs_after: int = 0) -> Iterator["subprocess.Popen[str]"]:
    """The training in a process of its own; after so many files its uploads hang, and it says so."""
    command = [sys.executable, "-c", TRAINING, str(home), str(hangs_after)]
    environment = os.environ | {"PLUMBLINE_STORE": address}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, server: S3) -> bytes:
    """The weights of a training that nobody stopped."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        store = RemoteStore(Bucket(f"s3://{server.bucket()}/x"), tmp_path_factory.mktemp("undisturbed"))
        return weights(store, compute(store, lambda *_: None))


def weights(store: RemoteStore, ref: StageRef) -> bytes:
    store.fetch(ref.stage, ref.key)
    return (ref.folder / "model.safetensors").read_bytes()


def goes_on_after(step: int, store: RemoteStore, undisturbed: bytes) -> None:
    """The training goes on behind this step, ends as if nothing had been, and leaves nothing but its result."""
    steps: list[int] = []
    ref = compute(store, lambda done, _: steps.append(done))
    assert steps == list(range(step + 1, STEPS + 1))
    assert weights(store, ref) == undisturbed
    assert objects(store) == []


def test_a_training_that_is_killed_goes_on_at_its_last_checkpoint_on_another_machine(
    machine, address, tmp_path, undisturbed
):
    """To the bit, as if it had not been killed."""
    other = machine("b")
    with training(address, tmp_path / "a") as process:
        until(lambda: kept_step(other) >= 8)
        process.send_signal(signal.SIGKILL)
        process.wait()
    goes_on_after(kept_step(other), other, undisturbed)


def test_a_training_that_is_killed_in_mid_upload_leaves_the_checkpoint_before_it(
    machine, address, tmp_path, undisturbed
):
    """A checkpoint is six files here: the first is there, and of the second one four."""
    other = machine("b")
    with training(address, tmp_path / "a", hangs_after=10) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the upload\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    step = kept_step(other)
    assert step >= 4
    assert len(objects(other)) == 7 + 4
    goes_on_after(step, other, undisturbed)


def test_a_training_whose_store_is_lost_ends_well(line, address, tmp_path, quick, caplog, undisturbed):
    """It is lost with the first bytes of the first checkpoint, and is there again once the training has ended."""
    store = RemoteStore(Bucket(address), tmp_path / "a", every=0.05)

    def progress(done: int, total: int) -> None:
        if done == 4:
            line.left = 2_000
        if done in {5, 9}:
            time.sleep(3.0)
        if done == total:
            assert list((tmp_path / "a" / ".work").glob(f"{STAGE}-{KEY}/checkpoint-*"))
            line.left = -1

    ref = compute(store, progress)
    assert weights(store, ref) == undisturbed
    assert caplog.text.count("stay on this machine alone") == 1
