"""The commands on the store: what is there, whether it is whole, and what may go."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alignment.remote.store import RemoteStore
from tasks.home import store
from tests import s3
from tests.flows.cli.outcome import Outcome


def write(stage: str, key: str) -> Path:
    def fill(folder: Path) -> dict[str, int]:
        (folder / "rows.txt").write_text("x" * 2_000)
        return {"rows": 1}

    return store().write(stage, key, fill).path


def test_an_empty_store_is_none_to_look_at(plumbline_alone: Callable[..., Outcome]) -> None:
    outcome = plumbline_alone("store", "list")
    assert outcome.code == 0
    assert outcome.out.startswith("0 stages, 0 B, in ")


def test_stages_are_listed_with_size_and_what_needs_them(plumbline_alone: Callable[..., Outcome]) -> None:
    write("base", "k1")
    outcome = plumbline_alone("store", "list")
    assert [line.split() for line in outcome.out.splitlines()][1:] == [
        ["stage", "key", "size", "age", "needed", "by"],
        ["base", "k1", "2.2", "kB", "0", "minutes", "a", "running", "process"],
    ]


def test_the_shards_of_a_stage_are_one_row_and_keys_are_whole_on_80_columns(
    plumbline_alone: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLUMBLINE_STORE", str(tmp_path / "shared"))
    key, other = "0123456789abcdef0123", "aaaaaaaaaaaaaaaaaaaa"
    for number in range(12):
        write("validation-parts", f"{key}-{number * 1_000_000}-{(number + 1) * 1_000_000}")
    for stage, one in (("validation-parts", f"{other}-0-8"), ("validation", key)):
        write(stage, one)
    monkeypatch.setenv("COLUMNS", "80")
    told, *lines = plumbline_alone("store", "list").out.splitlines()
    assert told.startswith("1 stage and 13 shards, ")
    size = sum(each.size for each in store().stored() if each.key.startswith(f"{key}-"))
    rows = [line.split()[:4] for line in lines if line.startswith("validation")]
    assert [row[:2] for row in rows] == [["validation", key], ["validation-parts", other], ["validation-parts", key]]
    assert [row[2:] for row in rows[1:]] == [["1", rows[0][2]], ["12", f"{size / 1e3:.1f}"]]
    assert max(map(len, lines)) <= 80


def test_what_is_damaged_is_refused_until_it_is_deleted(plumbline_alone: Callable[..., Outcome]) -> None:
    folder = write("base", "k1")
    assert plumbline_alone("store", "verify").out == "1 stage: all are whole\n"
    (folder / "rows.txt").write_text("y")
    damaged = plumbline_alone("store", "verify")
    assert damaged.code == 3
    assert "damaged base/k1" in damaged.out
    deleted = plumbline_alone("store", "verify", "--delete")
    assert deleted.code == 0
    assert re.search(r"\n1 stage: 1 damaged, deleted \(\d+ B\)\n$", deleted.out)
    assert store().find("base", "k1") is None


def test_what_would_go_is_said_and_what_this_process_uses_stays(plumbline_alone: Callable[..., Outcome]) -> None:
    write("base", "k1")
    kept = plumbline_alone("store", "prune", "--older-than", "0d")
    assert kept.out == "deleted: nothing\n"
    for mark in (store().root / ".used").iterdir():
        mark.unlink()
    told = plumbline_alone("store", "prune", "--older-than", "0d", "--dry-run")
    assert "base/k1  2.2 kB, 0 minutes old" in told.out
    assert told.out.endswith("\nwould be deleted with --older-than 0d: 1 stage (2.2 kB)\n")
    assert plumbline_alone("store", "prune", "--older-than", "0d").out.endswith("\ndeleted: 1 stage (2.2 kB)\n")
    assert store().find("base", "k1") is None


def test_a_dry_run_has_an_age_of_its_own_and_what_deletes_has_none(plumbline_alone: Callable[..., Outcome]) -> None:
    write("base", "k1")
    assert plumbline_alone("store", "prune", "--dry-run").out == "would be deleted with --older-than 30d: nothing\n"
    refused = plumbline_alone("store", "prune")
    assert refused.code == 2
    assert " ".join(refused.err.split()) == (
        "plumbline: store prune: how old has to be what is deleted? Give --older-than 30d, 12h or 2w; --dry-run alone "
        "shows what 30d would delete"
    )


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The store is in a bucket of an S3 server."""
    with s3.serving() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PLUMBLINE_STORE", f"s3://{server.bucket()}/x")
        yield


@pytest.mark.usefixtures("bucket")
def test_where_this_machines_copy_alone_is_damaged_the_others_lose_nothing(
    plumbline_alone: Callable[..., Outcome],
) -> None:
    folder = write("base", "k1")
    (folder / "rows.txt").write_text("y")
    damaged = plumbline_alone("store", "verify")
    assert damaged.code == 3
    assert "damaged base/k1: its copy on this machine: " in " ".join(damaged.out.split())
    assert plumbline_alone("store", "verify", "--delete").code == 0
    assert not folder.exists()
    found = store().find("base", "k1")
    assert found is not None
    assert (found.path / "rows.txt").read_text() == "x" * 2_000
    assert plumbline_alone("store", "verify").out == "1 stage: all are whole\n"


@pytest.mark.usefixtures("bucket")
def test_checkpoints_of_a_stage_that_is_not_finished_are_told_apart_from_stages(
    plumbline_alone: Callable[..., Outcome],
) -> None:
    with store().lock("policy", "k1"):
        (store().work("policy", "k1") / "checkpoint-4").write_text("x" * 2_000_000)
    listed = plumbline_alone("store", "list")
    assert listed.out.startswith("0 stages, 0 B, in s3://")
    assert "not finished: policy/k1, 2.0 MB, 0 minutes old, by " in listed.out
    assert listed.out.endswith("; another machine can go on with it\n")
    assert plumbline_alone("store", "verify").out == "0 stages: all are whole\n"
    prune = ("store", "prune", "--only-this-mlflow", "--older-than")
    assert plumbline_alone(*prune, "1d").out == "deleted: nothing\n"
    told = plumbline_alone(*prune, "0d")
    assert told.out == "deleted: 1 unfinished draft, upload or checkpoint (2.0 MB)\n"
    assert list(store().underway()) == []


@pytest.mark.usefixtures("bucket")
def test_checkpoints_that_are_damaged_are_kept_while_their_stage_is_computed(
    plumbline_alone: Callable[..., Outcome],
) -> None:
    """Whoever computes it replaces them; the command says that they were kept, and ends as one that left damage."""
    here = store()
    assert isinstance(here, RemoteStore)
    with here.lock("policy", "k1"):
        (here.work("policy", "k1") / "checkpoint-4").write_text("x" * 2_000)
    (file,) = [each.name for each in here.bucket.listing("work") if "/manifest" not in each.name]
    here.bucket.upload(iter([b"y"]), file)
    write("base", "k1")
    (here.root / "base" / "k1" / "rows.txt").write_text("y")
    with here.lock("policy", "k1"):
        held = plumbline_alone("store", "verify", "--delete")
    assert held.code == 3
    said = " ".join(held.out.split())
    assert "deleted base/k1: its copy on this machine: " in said
    assert re.search(r"kept policy/k1: .*; it is computed now, and what comes next of it replaces this", said)
    assert re.search(r"1 stage: 2 damaged, 1 of them deleted \(2\.\d kB\)$", said)
    ended = plumbline_alone("store", "verify", "--delete")
    assert ended.code == 0
    assert re.search(r"\n1 stage: 1 damaged, deleted \(2\.\d kB\)\n$", ended.out)
    assert list(here.underway()) == []


def test_a_store_that_is_none_is_one_line(
    plumbline_alone: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_STORE", "ftp://host/x")
    outcome = plumbline_alone("store", "list")
    assert outcome.code == 2
    assert "PLUMBLINE_STORE ftp://host/x: is no address of a store" in outcome.err
    assert plumbline_alone("store", "prune", "--older-than", "soon").code == 2
