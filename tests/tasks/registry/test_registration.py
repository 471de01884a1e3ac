"""A policy is one version, written once, and takes the alias where no better version stands in its way."""

import itertools
import threading
from typing import Any

import pytest

from alignment.errors import PromotionError
from tasks.registry import connection, promotion, versions
from tasks.registry.aliases import read_aliases
from tasks.registry.promotion import find_candidate, make_champion, record_rejection, restore_previous
from tasks.registry.registration import Registration, refuse, register, why_no_alias
from tasks.registry.versions import RegisteredVersion
from tests.registered import make_run, verdict_tags

_names = (f"policy-{number}" for number in itertools.count())


@pytest.fixture(autouse=True)
def _no_events(local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "emit", lambda *_: None)


@pytest.fixture
def name() -> str:
    return next(_names)


def run(name: str, policy: str, alias: str = "challenger", **options: Any) -> Registration:
    """A run that trained `policy` and passed its gates."""
    run_id, uri = make_run(name)
    given = {"key": policy, "description": "a card", "tags": verdict_tags()} | options
    return register(run_id, uri, name, alias, **given)


def decide(name: str, version: int, decision: Any) -> None:
    decision.fn(find_candidate(name, version), "because", "Ann")


def aliases_of(name: str) -> tuple[str | None, str | None, str | None]:
    """Champion, previous, challenger."""
    found = read_aliases(name)
    return found.champion, found.previous, found.challenger


# What a run registers


def test_a_new_policy_is_the_next_version_and_the_challenger(name: str) -> None:
    for number, policy in enumerate("ab", 1):
        made = run(name, policy)
        assert made == Registration(name=name, version=str(number), aliases=("challenger",), new=True)
        assert made.sentence == f"{name} version {number} (challenger)"
    assert aliases_of(name) == (None, None, "2")


def test_a_run_that_trains_an_old_policy_again_moves_no_alias(name: str) -> None:
    """The case of a run that is cached from start to end, three versions late."""
    for policy in "abcd":
        run(name, policy)
    decide(name, 1, make_champion)
    again = run(name, "a")
    assert again.sentence == (
        f"{name} version 1 (champion); this policy is version 1 already; it does not become `challenger`: it is the "
        "`champion`"
    )
    assert run(name, "b").sentence == (
        f"{name} version 2 (no alias); this policy is version 2 already; it does not become `challenger`: the newer "
        "version 4 is"
    )
    assert run(name, "d").sentence == f"{name} version 4 (challenger); this policy is version 4 already"
    assert aliases_of(name) == ("1", None, "4")


def test_a_run_that_died_before_the_alias_was_set_sets_it_when_it_is_tried_again(name: str) -> None:
    run_id, uri = make_run(name)
    versions.create_version(run_id, uri, name, key="a", tags=verdict_tags())
    assert register(run_id, uri, name, "challenger", key="a", description="", tags={}).sentence == (
        f"{name} version 1 (challenger)"
    )


def test_a_version_s_tags_and_description_are_written_once(name: str) -> None:
    run(name, "a")
    client = connection.client()
    client.update_model_version(name, "1", "read by Ann")
    client.set_model_version_tag(name, "1", "reviewed", "yes")
    before = versions.get_version(name, "1").tags
    run(name, "a", description="another card", tags=verdict_tags() | {"gate.another": "passed"})
    assert versions.get_version(name, "1").tags == before
    assert client.get_model_version(name, "1").description == "read by Ann"


def test_a_policy_that_another_alias_was_asked_for_gets_it_too(name: str) -> None:
    run(name, "a")
    assert run(name, "a", alias="candidate").aliases == ("candidate", "challenger")


def test_a_deleted_version_s_policy_is_registered_anew(name: str) -> None:
    run(name, "a")
    connection.client().delete_model_version(name, "1")
    assert run(name, "a").sentence == f"{name} version 2 (challenger)"


def test_a_version_whose_run_was_deleted_is_made_anew_since_nobody_could_promote_it(name: str) -> None:
    run(name, "a")
    connection.client().delete_run(versions.get_version(name, "1").run_id)
    assert run(name, "a").version == "2"
    decide(name, 2, make_champion)
    assert aliases_of(name) == ("2", None, None)


def test_a_version_whose_model_was_deleted_is_made_anew_since_nobody_could_load_it(name: str) -> None:
    run(name, "a")
    connection.client().delete_logged_model(versions.get_version(name, "1").source.removeprefix("models:/"))
    assert run(name, "a").sentence == f"{name} version 2 (challenger)"


def test_two_runs_at_once_make_one_version(name: str) -> None:
    runs = [make_run(name) for _ in range(4)]
    found: list[Registration] = []
    together = threading.Barrier(len(runs))

    def work(run_id: str, uri: str) -> None:
        together.wait()
        found.append(register(run_id, uri, name, "challenger", key="a", description="", tags=verdict_tags()))

    threads = [threading.Thread(target=work, args=item) for item in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [item.version for item in found] == ["1"] * len(runs)
    assert sum(item.new for item in found) == 1


# Decisions of people


@pytest.mark.parametrize("later", [False, True], ids=["the-challenger", "no-longer-the-challenger"])
def test_a_rejected_version_does_not_become_challenger_again(name: str, later: bool) -> None:
    run(name, "a")
    decide(name, 1, record_rejection)
    if later:
        versions.drop_alias(name, "challenger")
    again = run(name, "a")
    assert again.aliases == (() if later else ("challenger",))
    assert again.note == ("it does not become `challenger`: it was rejected" if later else "")


def test_a_version_that_was_rolled_back_does_not_become_challenger_again(name: str) -> None:
    for number, policy in enumerate("ab", 1):
        run(name, policy)
        decide(name, number, make_champion)
    restore_previous.fn(name, "worse in use", "Ann")
    assert run(name, "b").note == "it does not become `challenger`: it was rolled back"
    assert aliases_of(name) == ("1", "2", None)


def version(number: str, **tags: str) -> RegisteredVersion:
    return RegisteredVersion("m", number, (), "r", verdict_tags() | {key.replace("__", "."): tags[key] for key in tags})


@pytest.mark.parametrize(
    ("mine", "holder", "champion", "reason"),
    [
        (version("2"), None, None, ""),
        (version("2"), version("1"), version("1"), ""),
        (version("2"), version("2"), version("1"), ""),
        (version("2"), version("3"), None, "the newer version 3 is"),
        (version("2"), version("10"), None, "the newer version 10 is"),
        (version("2"), version("3", plumbline__verdict="fail"), None, ""),
        (version("2"), version("3", gate__kl="failed"), None, ""),
        (version("2"), version("3", plumbline__judged_again="Run r: no"), None, ""),
        (version("2"), None, version("2"), "it is the `champion`"),
        (version("2", promotion__decision="approved"), None, None, ""),
        (version("2", promotion__decision="failed"), None, None, ""),
        (version("2", promotion__decision="rejected"), None, None, "it was rejected"),
        (version("2", promotion__decision="promoted"), None, version("3"), "it was promoted"),
        (version("2", promotion__decision="reverted"), None, version("1"), "it was reverted"),
    ],
)
def test_an_alias_is_taken_from_older_and_from_failed_versions_alone(
    mine: RegisteredVersion, holder: RegisteredVersion | None, champion: RegisteredVersion | None, reason: str
) -> None:
    assert why_no_alias(mine, holder, champion) == reason


# The same policy under other gates


def test_a_version_that_later_gates_refuse_keeps_its_tags_and_is_not_promoted(name: str) -> None:
    run(name, "a")
    before = versions.get_version(name, "1").tags
    refused = refuse("run 2", name, key="a", sentence="Not registered: KL per token 0.05 exceeds 0.01.")
    assert refused is not None
    assert refused.sentence == (
        f"{name} version 1 (challenger); this policy is version 1 already; it passed other gates then, and is not "
        "promoted until it passes again"
    )
    assert before.items() <= versions.get_version(name, "1").tags.items()
    with pytest.raises(
        PromotionError, match=r"judged again, it failed\. Run run 2: Not registered: KL per token 0\.05"
    ):
        find_candidate(name, 1)


def test_a_version_that_passes_again_may_be_promoted(name: str) -> None:
    run(name, "a")
    refuse("run 2", name, key="a", sentence="no")
    run(name, "a")
    decide(name, 1, make_champion)
    assert aliases_of(name) == ("1", None, None)


def test_a_refused_policy_that_is_no_version_stays_none(name: str) -> None:
    assert refuse("run 1", name, key="a", sentence="no") is None
    assert versions.read_model(name) is None


def test_a_policy_that_was_refused_first_is_registered_by_the_run_in_which_it_passes(name: str) -> None:
    refuse("run 1", name, key="a", sentence="no")
    assert run(name, "a").sentence == f"{name} version 1 (challenger)"
    decide(name, 1, make_champion)
