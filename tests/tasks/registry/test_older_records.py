"""Versions that another release recorded: promoted, rolled back and smoke-tested, or left alone where it is newer."""

import json
from pathlib import Path

import pytest

from alignment.config import PromotionConfig
from alignment.errors import NewerRecordError
from alignment.judging.report import SCHEMA
from tasks import smoke
from tasks.registry import downloads, promotion, records, versions
from tasks.registry.aliases import read_aliases
from tasks.registry.candidates import card
from tasks.registry.promotion import find_candidate, make_champion, reconcile, restore_previous
from tests.registered import make_version

SCHEMA_1 = Path(__file__).parents[2] / "fixtures" / "schema_1"


@pytest.fixture(autouse=True)
def _no_events(local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "emit", lambda *_: None)


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The record of a release to come."""
    folder = tmp_path / "newer"
    folder.mkdir()
    for file in SCHEMA_1.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / records.REPORT).write_text(json.dumps({"schema": SCHEMA + 1, "figures": {}}), encoding="utf-8")
    return folder


def promote(name: str) -> promotion.Outcome:
    return make_champion.fn(find_candidate(name, None), "reads well", "Ann")


def test_a_version_of_an_older_release_is_promoted_and_rolled_back_to() -> None:
    make_version("old", record=SCHEMA_1)
    candidate = find_candidate("old", None)
    assert (candidate.refusal, len(candidate.samples)) == ("", 32)
    shown = card(candidate)
    assert "- win rate 0.9688, bound ≥ 0.55: passed" in shown
    assert "- grammatical sentences: 88.5% → 83.1%, −5.5 points" in shown
    assert promote("old").decision == "promoted"
    make_version("old")
    promote("old")
    assert restore_previous.fn("old", "it was better", "Ann").decision == "rolled back"
    assert read_aliases("old").champion == "1"


def test_a_champion_of_an_older_release_that_was_set_by_hand_is_taken_over() -> None:
    make_version("by-hand", record=SCHEMA_1)
    versions.set_alias("by-hand", "champion", "1")
    assert reconcile("by-hand", PromotionConfig(when_ungated="revert")) == "promoted"


def test_a_version_of_an_older_release_is_compared_with_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version("smoked", record=SCHEMA_1, alias="champion")
    monkeypatch.setattr(downloads, "local_model", lambda *_: tmp_path)
    subject = smoke.load_version.fn("smoked", "champion")
    assert subject.report is not None
    assert subject.report.prompts == 256
    assert len(subject.prompts) == 32
    assert (subject.config.reward.steps, subject.config.reward.learning_rate) == (300, 0.002)
    assert (subject.config.base.steps, subject.config.data.rows, subject.config.sampling.total_tokens) == (
        280,
        10_000,
        64,
    )


def test_a_newer_record_speaks_neither_for_nor_against_a_version(newer: Path) -> None:
    make_version("newer", record=newer)
    with pytest.raises(
        NewerRecordError, match=rf"schema {SCHEMA + 1} is newer than the {SCHEMA} .*; upgrade Plumbline"
    ):
        find_candidate("newer", None)


def test_a_champion_with_a_newer_record_is_not_reverted(newer: Path) -> None:
    make_version("ahead")
    promote("ahead")
    make_version("ahead", record=newer, alias="champion")
    before = read_aliases("ahead")
    with pytest.raises(NewerRecordError, match="upgrade Plumbline"):
        reconcile("ahead", PromotionConfig(when_ungated="revert"))
    assert read_aliases("ahead") == before
    assert (before.champion, before.recorded) == ("2", "1")
    assert "promotion.decision" not in versions.get_version("ahead", "2").tags


def test_a_smoke_test_of_a_newer_record_says_what_to_do(
    newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version("smoked-ahead", record=newer, alias="champion")
    monkeypatch.setattr(downloads, "local_model", lambda *_: tmp_path)
    with pytest.raises(NewerRecordError, match="upgrade Plumbline"):
        smoke.load_version.fn("smoked-ahead", "champion")
