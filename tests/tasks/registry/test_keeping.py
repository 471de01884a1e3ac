"""The store is pruned of what is old and of no version, and says what needs the rest."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from alignment.errors import InputError, StoreError
from alignment.stages.marks import this_process
from alignment.stages.store import StageRef, Store
from tasks import keeping
from tasks.home import home, store
from tasks.registry import connection, elsewhere, records
from tasks.registry.connection import Place
from tests.registered import make_version

pytestmark = pytest.mark.usefixtures("local")
OLD = timedelta(0)


def writing(text: str) -> Callable[[Path], dict[str, int]]:
    def fill(folder: Path) -> dict[str, int]:
        (folder / "rows.txt").write_text(text)
        return {"rows": 1}

    return fill


def gone(process: int = 2**22 - 1) -> None:
    """What this process has found is noted as if by one that has ended."""
    marks = store().root / ".used"
    for mark in marks.iterdir():
        mark.rename(marks / f"{mark.name.rpartition('@')[0]}@{process}")


@pytest.fixture
def base() -> StageRef:
    """A base and pairs that were made from it, by a process that has ended."""
    made = store().write("base", "k1", writing("base"))
    store().write("pairs", "k2", writing("pairs"), inputs={"parents": {"base": made.digest}})
    gone()
    return made


def keys() -> list[str]:
    return sorted(f"{each.stage}/{each.key}" for each in store().stored())


def test_old_stages_that_nothing_needs_are_deleted(base):
    found = keeping.prune(OLD, dry_run=True)
    assert [each.stage for each in found.stages] == ["pairs", "base"]
    assert found.size == sum(each.size for each in store().stored())
    assert keys() == ["base/k1", "pairs/k2"]
    keeping.prune(OLD, dry_run=False)
    assert keys() == []


def test_young_stages_stay(base):
    assert keeping.prune(timedelta(days=1), dry_run=False).stages == ()
    assert keys() == ["base/k1", "pairs/k2"]


def test_what_this_process_has_found_stays(base):
    store().find("base", "k1")
    keeping.prune(OLD, dry_run=False)
    assert keys() == ["base/k1"]


def test_what_a_registered_version_was_made_from_stays_and_is_listed_as_such(base):
    version = make_version("kept")
    records.log_json(version.run_id, "lineage.json", {"base": base.model_dump(mode="json")})
    listed = {each.stored.stage: each for each in keeping.listed()}
    assert listed["base"].versions == ("kept 1",)
    assert (listed["base"].stages, listed["pairs"].versions, listed["pairs"].stages) == (1, (), 0)
    keeping.prune(OLD, dry_run=False)
    assert keys() == ["base/k1"]


def test_drafts_of_dead_processes_are_deleted_and_those_of_living_ones_stay(base):
    drafts = store().root / ".draft"
    here, _, mine = this_process().rpartition("@")
    for process in (str(2**22 - 1), mine):
        (drafts / f"pairs-k3@{here}@{process}@1").mkdir(parents=True)
    assert keeping.prune(timedelta(days=1), dry_run=True).unfinished == 1
    keeping.prune(timedelta(days=1), dry_run=False)
    assert [draft.name.split("@")[2] for draft in drafts.iterdir()] == [mine]


def test_a_store_of_several_machines_is_not_pruned_by_what_one_of_them_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("PLUMBLINE_STORE", str(tmp_path / "shared"))
    store().write("base", "k1", writing("of no version"))
    gone()
    with pytest.raises(StoreError, match=r"is used by several machines.*--only-this-mlflow"):
        keeping.prune(OLD, dry_run=False)
    keeping.prune(OLD, dry_run=False, only_this_mlflow=True)
    assert keys() == []


def test_what_a_process_finds_while_others_are_deleted_stays(monkeypatch):
    for key in ("k1", "k2"):
        store().write("texts", key, writing(key))
    used = iter([set(), {("texts", "k2")}, {("texts", "k2")}])  # asked before all, and before each
    monkeypatch.setattr(Store, "used", lambda self: next(used))
    assert [each.key for each in keeping.prune(OLD, dry_run=False).stages] == ["k1"]
    assert keys() == ["texts/k2"]


def test_a_home_that_registers_in_two_mlflows_is_not_pruned_by_what_one_of_them_knows(monkeypatch):
    store().write("texts", "k1", writing("texts"))
    gone()
    here, away = connection._place, Place("https://me:secret@mlflow.example.org", None)
    monkeypatch.setattr(connection, "_place", away)
    elsewhere.note()
    assert elsewhere.others() == []
    (home() / "mlflow.db").touch()
    assert elsewhere.others() == [str(home() / "mlflow.db")], "this home's own database is another one there"
    monkeypatch.setattr(connection, "_place", here)
    elsewhere.note()
    with pytest.raises(StoreError, match=r"used the MLflow at https://mlflow\.example\.org too.*--only-this-mlflow"):
        keeping.prune(OLD, dry_run=True)
    keeping.prune(OLD, dry_run=False, only_this_mlflow=True)
    assert keys() == []


def test_servers_of_this_machine_come_and_go_with_their_ports_and_are_the_homes_own(monkeypatch):
    monkeypatch.setattr(connection, "_place", Place("http://127.0.0.1:5001", None))
    elsewhere.note()
    assert elsewhere.others() == []


def test_what_is_damaged_is_named_and_deleted_where_that_is_asked_for(base):
    (base.path / "rows.txt").write_text("other")
    assert [(each.stage, damage[:30]) for each, damage, _ in keeping.damaged(delete=False) if damage] == [
        ("base", str(base.path)[:30])
    ]
    assert keys() == ["base/k1", "pairs/k2"]
    list(keeping.damaged(delete=True))
    assert keys() == ["pairs/k2"]


@pytest.mark.parametrize("damage", ["other", "gone"])
def test_a_stage_whose_part_is_damaged_or_gone_is_damaged_too(damage):
    """It would be found by every run, and read by none."""

    def listing(folder: Path) -> dict[str, int]:
        told = [{"folder": f"samples-parts/k-{first}", "rows": {}} for first in (0, 8)]
        (folder / "parts.json").write_text(json.dumps(told))
        return {}

    parts = [store().write("samples-parts", f"k-{first}", writing(str(first))) for first in (0, 8)]
    store().write("samples", "k", listing)
    assert [damage for _, damage, _ in keeping.damaged(delete=True) if damage] == []
    if damage == "gone":
        store().delete("samples-parts", "k-0")
    else:
        (parts[0].path / "rows.txt").write_text("other")
    found = {f"{each.stage}/{each.key}": damage for each, damage, _ in keeping.damaged(delete=True) if damage}
    assert found["samples/k"] == "its part samples-parts/k-0 is damaged or gone"
    assert keys() == ["samples-parts/k-8"]


@pytest.mark.parametrize(("text", "days"), [("30d", 30), ("2w", 14), ("12h", 0.5), ("0d", 0)])
def test_a_duration_is_a_number_and_a_unit(text, days):
    assert keeping.duration(text) == timedelta(days=days)


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1y", "1.5d"])
def test_anything_else_is_no_duration(text):
    with pytest.raises(InputError, match="30d, 12h or 2w"):
        keeping.duration(text)
