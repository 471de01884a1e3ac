"""A version's tags: what Plumbline remembers is one tag; an older release wrote each as one of its own."""

import json
from typing import Any

import pytest

from alignment.aliases import ANCHOR
from alignment.config import PromotionConfig
from tasks.registry import connection, marks, promotion, registration, versions
from tasks.registry.aliases import Aliases, locked, read_aliases
from tasks.registry.listing import list_versions
from tests.registered import make_run, make_version

OLD = {
    "gate.win_rate": "passed",
    "plumbline.key": "k1",
    "plumbline.verdict": "pass",
    "promotion.decision": "rejected",
    "promotion.approver": "Ann",
    "promotion.history": "2026-01-01T10:00:00+00:00 rejected, Ann",
    "team": "films",
}
"""As 0.4 wrote them, and one that a person set."""


def test_tags_of_an_older_release_are_read_as_they_are() -> None:
    assert marks.read(OLD) == OLD


def test_what_is_written_is_read_again_and_people_s_tags_stay_their_own() -> None:
    made = marks.change({"team": "films"}, {"plumbline.key": "k1", "gate.kl": "failed", "gain": "+0.96"})
    assert made.values.keys() == {"gain", marks.TAG}
    assert json.loads(made.values[marks.TAG]) == {"plumbline.key": "k1", "gate.kl": "failed"}
    assert made.outdated == ()
    assert marks.read({"team": "films", **made.values}) == {
        "team": "films",
        "gain": "+0.96",
        "plumbline.key": "k1",
        "gate.kl": "failed",
    }


def test_a_change_of_an_older_release_s_version_takes_all_of_it_along() -> None:
    made = marks.change(OLD, {"promotion.decision": "promoted", "promotion.approver": ""})
    assert set(made.outdated) == OLD.keys() - {"team"}
    found = marks.read({"team": "films", **made.values})
    assert found == {k: v for k, v in OLD.items() if k != "promotion.approver"} | {"promotion.decision": "promoted"}


def test_the_one_tag_wins_over_what_an_older_release_left_beside_it() -> None:
    tags = {"promotion.decision": "rejected", marks.TAG: '{"promotion.decision":"promoted"}'}
    assert marks.read(tags) == {"promotion.decision": "promoted"}


@pytest.mark.parametrize("broken", ["", "by hand", "[1]", "null"])
def test_a_tag_that_a_person_made_something_else_of_holds_nothing(broken: str) -> None:
    assert marks.read({marks.TAG: broken, "plumbline.key": "k1"}) == {"plumbline.key": "k1"}


def test_a_long_value_is_cut_so_that_all_fit_into_one_tag() -> None:
    made = marks.change({}, {f"promotion.{n}": "x" * 9_000 for n in range(20)})
    assert len(made.values[marks.TAG]) < 100_000
    assert marks.read(made.values)["promotion.0"].endswith("…")


def test_a_history_that_is_too_long_loses_its_oldest_decisions() -> None:
    lines = [f"{number} {'x' * 1_998}" for number in range(10, 30)]
    made = marks.change({}, {marks.HISTORY: "\n".join(lines)})
    kept = marks.read(made.values)[marks.HISTORY].splitlines()
    assert kept == lines[-len(kept) :]
    assert len(kept) == 9  # 2,002 characters each, of 20,000


# in MLflow


def as_an_older_release_wrote_it(name: str, **changed: str) -> None:
    """The next version of `name`, with separate tags alone."""
    version = make_version(name)
    client: Any = connection.client()
    tags = dict(version.tags) | changed
    client.delete_model_version_tag(name, version.version, marks.TAG)
    for tag, value in tags.items():
        client.set_model_version_tag(name, version.version, tag, value)


def stored(name: str, version: str) -> dict[str, str]:
    return dict(connection.client().get_model_version(name, version).tags)


@pytest.mark.usefixtures("local")
def test_an_older_version_is_found_listed_promoted_and_rolled_back() -> None:
    name = "older"
    as_an_older_release_wrote_it(name, **{"plumbline.key": "policy 1"})
    as_an_older_release_wrote_it(name, **{"plumbline.key": "policy 2"})
    assert stored(name, "1").keys() >= {"plumbline.key", "plumbline.verdict", "gate.win_rate"}
    found = versions.find_version(name, "policy 1")
    assert found is not None
    assert found.version == "1"
    assert [each.verdict for each in list_versions(name)] == ["pass", "pass"]

    for version in (1, 2):
        promotion.make_champion.fn(promotion.find_candidate(name, version), "reads well", "Ann")
    promotion.restore_previous.fn(name, "it rambles", "Bob")

    assert read_aliases(name) == Aliases("1", "2", None, "1")
    assert stored(name, "2").keys() == {marks.TAG}
    tags = versions.get_version(name, "2").tags
    assert (tags["plumbline.key"], tags["promotion.decision"], tags["promotion.approver"]) == (
        "policy 2",
        "rolled back",
        "Bob",
    )
    assert [line.partition(" ")[2] for line in tags["promotion.history"].splitlines()] == [
        "promoted, Ann: reads well",
        "rolled back, Bob: it rambles",
    ]
    found = versions.find_version(name, "policy 2")
    assert found is not None
    assert found.version == "2"


@pytest.mark.usefixtures("local")
def test_an_older_version_made_champion_by_hand_is_taken_over() -> None:
    as_an_older_release_wrote_it("taken-over")
    versions.set_alias("taken-over", "champion", "1")
    assert versions.is_ours("taken-over")
    assert promotion.reconcile("taken-over", PromotionConfig()) == "promoted"


@pytest.mark.usefixtures("local")
def test_an_older_version_that_a_later_run_does_not_pass_says_so_and_is_not_promoted() -> None:
    as_an_older_release_wrote_it("again", **{"plumbline.key": "policy"})
    refused = registration.refuse("run 7", "again", key="policy", sentence="KL per token 0.31 exceeds 0.2.")
    assert refused is not None
    assert stored("again", "1")["verdict"] == "refused since"
    (listed,) = list_versions("again")
    assert (listed.verdict, listed.reason) == (
        "refused since",
        "judged again, it failed. Run run 7: KL per token 0.31 exceeds 0.2.",
    )


@pytest.mark.usefixtures("local")
def test_the_newest_version_is_found_whichever_release_wrote_it_and_a_wildcard_finds_nothing_else() -> None:
    as_an_older_release_wrote_it("mixed", **{"plumbline.kind": ANCHOR})
    run_id, uri = make_run("mixed")
    versions.create_version(run_id, uri, "mixed", key="k_2", tags={marks.KIND: ANCHOR})
    found = versions.find_tagged("mixed", marks.KIND, ANCHOR)
    assert found is not None
    assert found.version == "2"
    assert versions.find_version("mixed", "k_2") is not None
    assert versions.find_version("mixed", "k__") is None


@pytest.mark.usefixtures("local")
def test_two_writers_lose_nothing_of_each_other() -> None:
    make_version("both")
    with locked("both"):
        versions.tag_version("both", "1", {"smoke.verdict": "passed"})
        versions.tag_version("both", "1", {"promotion.decision": "promoted", "gain": "+1.01"})
    tags = versions.get_version("both", "1").tags
    assert (tags["smoke.verdict"], tags["promotion.decision"], tags["gain"]) == ("passed", "promoted", "+1.01")
    assert len(stored("both", "1")) == 2
