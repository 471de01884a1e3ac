"""What may be deleted: what is old and nothing needs, neither for good, nor now, nor to say where it came from."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from alignment.stages.stored import Stored, stored, unneeded

NOW = datetime(2026, 1, 31, tzinfo=UTC)
BEFORE = NOW - timedelta(days=30)


def stage(name: str, *parents: str, days: int = 60, parts: tuple[str, ...] = ()) -> Stored:
    """A stage whose key is k-NAME, of the content NAME."""
    of = {parent: parent for parent in parents}
    return Stored(name, f"k-{name}", name, NOW - timedelta(days=days), 1, of, parts)


CHAIN = [stage("texts"), stage("base", "texts"), stage("pairs", "base"), stage("policy", "base", "pairs", days=50)]


def names(found: list[Stored]) -> list[str]:
    return [each.stage for each in found]


def test_what_is_old_and_needed_by_nothing_goes_the_youngest_first():
    assert names(unneeded(CHAIN, (), (), BEFORE))[0] == "policy"
    assert set(names(unneeded(CHAIN, (), (), BEFORE))) == {"texts", "base", "pairs", "policy"}


def test_what_is_young_stays_with_all_that_it_was_made_from():
    young = stage("report", "pairs", days=1)
    assert names(unneeded([*CHAIN, young], (), (), BEFORE)) == ["policy"]


def test_what_a_registered_version_was_made_from_stays():
    assert names(unneeded(CHAIN, [("pairs", "pairs")], (), BEFORE)) == ["policy"]


def test_what_a_running_process_uses_stays_with_its_parents():
    assert set(names(unneeded(CHAIN, (), [("base", "k-base")], BEFORE))) == {"pairs", "policy"}


def test_the_parts_of_what_is_needed_stay():
    part, other = stage("samples-parts"), Stored("samples-parts", "other", "other", NOW - timedelta(days=60), 1, {})
    whole = stage("samples", days=1, parts=("samples-parts/k-samples-parts",))
    assert unneeded([part, other, whole], (), (), BEFORE) == [other]


def test_what_is_needed_and_no_longer_there_is_passed_over():
    assert names(unneeded([stage("pairs")], [("gone", "gone")], [("gone", "k")], BEFORE)) == ["pairs"]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"written": "no", "inputs": {}, "digest": "d"}'])
def test_a_manifest_that_says_too_little_is_left_out_with_a_warning(text, caplog):
    assert stored(text, "pairs", "k1", 3) is None
    assert "the manifest of pairs/k1 is not readable" in caplog.text


def test_a_manifest_says_what_it_was_made_from():
    told = {"written": NOW.isoformat(), "digest": "d", "inputs": {"parents": {"base": "b"}}, "parts": ["p/k"]}
    assert stored(json.dumps(told).encode(), "pairs", "k1", 3) == Stored(
        "pairs", "k1", "d", NOW, 3, {"base": "b"}, ("p/k",)
    )
