"""Promotion, rejection, rollback, and a champion that was set by hand."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from alignment.config import PromotionConfig
from alignment.errors import PromotionError, TrackingError
from tasks.events import CHAMPION_CHANGED, PROMOTION_REJECTED, PROMOTION_REVERTED
from tasks.registry import aliases, connection, promotion, records, versions
from tasks.registry.aliases import Aliases, read_aliases
from tasks.registry.candidates import Candidate
from tasks.registry.promotion import (
    find_candidate,
    judge_unrecorded,
    make_champion,
    reconcile,
    record_rejection,
    restore_previous,
)
from tests.registered import make_version, report

pytestmark = pytest.mark.usefixtures("local")

REVERT = PromotionConfig(when_ungated="revert")
WARN = PromotionConfig(when_ungated="warn")
FAILING = report(kl_per_token=0.31)
_names = (f"model-{number}" for number in itertools.count())


@pytest.fixture
def name() -> str:
    return next(_names)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The events that were emitted."""
    events: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(promotion, "emit", lambda event, _, payload: events.append((event, payload)))
    return events


def promote(name: str, version: int | None = None) -> promotion.Outcome:
    return make_champion.fn(find_candidate(name, version), "reads well", "Ann")


def told(payload: dict[str, Any]) -> tuple[str, str]:
    """The title of a notification, and the first line of its text."""
    assert payload["link"].endswith("workflowType=machine_learning")
    return payload["title"], payload["text"].splitlines()[0]


def about(payload: dict[str, Any]) -> dict[str, str]:
    """What an event says beside the notification."""
    return {key: value for key, value in payload.items() if key not in ("title", "text", "link")}


def tags_of(name: str, version: str) -> dict[str, str]:
    return dict(versions.get_version(name, version).tags)


def test_a_promotion_moves_all_aliases_tags_the_decision_and_sends_an_event(name: str, sent: list[Any]) -> None:
    for _ in range(2):
        make_version(name)
        outcome = promote(name)
    assert read_aliases(name) == Aliases("2", "1", None, "2")
    assert (outcome.decision, outcome.previous) == ("promoted", "1")
    tags = tags_of(name, "2")
    assert tags["promotion.decision"] == "promoted"
    assert (tags["promotion.reason"], tags["promotion.approver"]) == ("reads well", "Ann")
    assert tags["promotion.previous"] == "1"
    assert tags["promotion.time"].endswith("+00:00")
    assert tags["plumbline.verdict"] == "pass"
    assert [(event, about(payload)) for event, payload in sent] == [
        (CHAMPION_CHANGED, {"version": "1", "previous": "", "how": "promotion"}),
        (CHAMPION_CHANGED, {"version": "2", "previous": "1", "how": "promotion"}),
    ]
    assert told(sent[1][1]) == (
        f"{name} version 2 was promoted",
        f"{name} version 2 is the champion, after version 1; approved by Ann: reads well",
    )
    assert "reward gain +1.50; prompts won 93.0%" in sent[1][1]["text"]


def test_the_champion_is_not_promoted_again(name: str, sent: list[Any]) -> None:
    make_version(name)
    promote(name)
    tags = tags_of(name, "1")
    candidate = find_candidate(name, 1)
    assert candidate.settled
    assert make_champion.fn(candidate, "again", "Bob").decision == "unchanged"
    assert tags_of(name, "1") == tags
    assert len(sent) == 1


def test_a_rejection_is_written_down_and_moves_nothing(name: str, sent: list[Any]) -> None:
    make_version(name)
    before = read_aliases(name)
    outcome = record_rejection.fn(find_candidate(name, None), "dull", "Ann")
    assert outcome.decision == "rejected"
    assert read_aliases(name) == before
    assert {tags_of(name, "1")[f"promotion.{tag}"] for tag in ("decision", "reason", "approver")} == {
        "rejected",
        "dull",
        "Ann",
    }
    [(event, payload)] = sent
    assert (event, about(payload)) == (PROMOTION_REJECTED, {"version": "1", "reason": "dull"})
    assert told(payload) == (f"{name} version 1 was rejected by Ann", "dull")


def test_a_champion_that_changed_meanwhile_stops_the_promotion_and_is_named(name: str, sent: list[Any]) -> None:
    for _ in range(3):
        make_version(name)
    promote(name, 1)
    looked_at = find_candidate(name, 2)
    promote(name, 3)
    before = read_aliases(name)
    with pytest.raises(PromotionError, match=r"changed from version 1 to version 3"):
        make_champion.fn(looked_at, "", "Ann")
    assert read_aliases(name) == before
    assert "promotion.decision" not in tags_of(name, "2")


def test_of_two_promotions_at_once_one_wins_and_the_other_is_refused(
    name: str, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        make_version(name)
    promote(name, 1)
    candidates = [find_candidate(name, version) for version in (2, 3)]
    start, ends = threading.Barrier(2), list[Any]()

    def run(candidate: Candidate) -> None:
        start.wait()
        try:
            ends.append(make_champion.fn(candidate, "", "Ann"))
        except PromotionError as error:
            ends.append(error)

    threads = [threading.Thread(target=run, args=(candidate,)) for candidate in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [end for end in ends if isinstance(end, promotion.Outcome)]
    [loser] = [end for end in ends if isinstance(end, PromotionError)]
    assert f"from version 1 to version {winner.version}" in str(loser)
    assert read_aliases(name).champion == winner.version
    assert read_aliases(name).previous == "1"


CHANGES = ("set_alias", "drop_alias", "tag_model")


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """Let the change of the registry with this number fail, counted from 0, once."""
    count = itertools.count()

    def breaking(change: Callable[..., None]) -> Callable[..., None]:
        def call(*args: str) -> None:
            if next(count) == number:
                raise error
            change(*args)

        return call

    for change in CHANGES:
        monkeypatch.setattr(versions, change, breaking(getattr(versions, change)))


@pytest.mark.parametrize("step", range(4), ids=["champion", "previous", "challenger", "record"])
def test_a_move_that_fails_midway_is_put_back_and_can_be_done_again(
    name: str, sent: list[Any], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    make_version(name)
    promote(name)
    make_version(name)
    before = read_aliases(name)
    with monkeypatch.context() as patch:
        fail_at(patch, step, TrackingError("MLflow is unreachable"))
        with pytest.raises(TrackingError, match="MLflow is unreachable"):
            promote(name)
    assert read_aliases(name) == before
    assert tags_of(name, "2")["promotion.decision"] == "failed"
    assert len(sent) == 1
    promote(name)
    assert read_aliases(name) == Aliases("2", "1", None, "2")
    history = [line.partition(" ")[2] for line in tags_of(name, "2")["promotion.history"].splitlines()]
    assert history == ["failed, Ann: reads well", "promoted, Ann: reads well"]


def test_only_the_last_decisions_are_remembered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "REMEMBERED", 2)
    make_version(name)
    for reason in ("dull", "still dull", "as dull as ever"):
        record_rejection.fn(find_candidate(name, None), reason, "")
    history = [line.partition(" ")[2] for line in tags_of(name, "1")["promotion.history"].splitlines()]
    assert history == ["rejected, no name given: still dull", "rejected, no name given: as dull as ever"]


@pytest.mark.parametrize("step", range(4), ids=["champion", "previous", "challenger", "record"])
@pytest.mark.parametrize("by", ["promote", "receiver"])
def test_a_promotion_that_was_killed_midway_is_finished_by_the_next_one_or_by_the_receiver(
    name: str, sent: list[Any], monkeypatch: pytest.MonkeyPatch, step: int, by: str
) -> None:
    """Killed: nothing is put back, no tag is changed."""
    make_version(name)
    promote(name)
    make_version(name)
    with monkeypatch.context() as patch:
        fail_at(patch, step, KeyboardInterrupt())
        patch.setattr(aliases, "_put_back", lambda *_: None)
        patch.setattr(promotion, "_tag_outcome", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            promote(name)
    sent.clear()
    if by == "receiver" and read_aliases(name).champion == "2":
        reconcile(name, REVERT)
    else:
        promote(name, 2)
    assert read_aliases(name) == Aliases("2", "1", None, "2")
    assert tags_of(name, "2")["promotion.decision"] == "promoted"
    assert tags_of(name, "2")["promotion.approver"] == "Ann"
    assert [event for event, _ in sent] == [CHAMPION_CHANGED]


def test_a_rollback_goes_back_and_a_second_one_forth(name: str, sent: list[Any]) -> None:
    for _ in range(2):
        make_version(name)
        promote(name)
    sent.clear()
    outcome = restore_previous.fn(name, "it rambles", "Bob")
    assert (outcome.version, outcome.previous) == ("1", "2")
    assert read_aliases(name) == Aliases("1", "2", None, "1")
    assert tags_of(name, "2")["promotion.decision"] == "rolled back"
    assert tags_of(name, "1")["promotion.decision"] == "promoted"
    assert tags_of(name, "1")["promotion.reason"] == "it rambles"
    restore_previous.fn(name, "it did not", "Bob")
    assert read_aliases(name) == Aliases("2", "1", None, "2")
    history = [line.partition(" ")[2] for line in tags_of(name, "2")["promotion.history"].splitlines()]
    assert history == ["promoted, Ann: reads well", "rolled back, Bob: it rambles", "promoted, Bob: it did not"]
    assert [payload["how"] for _, payload in sent] == ["rollback", "rollback"]


def test_a_rollback_without_a_previous_says_so(name: str, sent: list[Any]) -> None:
    make_version(name)
    promote(name)
    with pytest.raises(PromotionError, match="nothing to roll back to"):
        restore_previous.fn(name, "", "Bob")
    assert read_aliases(name) == Aliases("1", None, None, "1")


@pytest.mark.parametrize(
    ("aliases", "refusal", "ours", "policy", "verdict"),
    [
        (Aliases("2", recorded="2"), "failed", True, REVERT, "nothing"),
        (Aliases(None, recorded="2"), "", True, REVERT, "nothing"),
        (Aliases("3", recorded="2"), "", True, REVERT, "promoted"),
        (Aliases("3", recorded="2"), "", True, WARN, "promoted"),
        (Aliases("3", recorded=None), "", True, REVERT, "promoted"),
        (Aliases("3", recorded="2"), "failed", True, REVERT, "reverted"),
        (Aliases("3", recorded=None), "failed", True, REVERT, "reverted"),
        (Aliases("3", recorded="2"), "failed", True, WARN, "warned"),
        (Aliases("3", recorded=None), "failed", False, REVERT, "not ours"),
        (Aliases("3", recorded=None), "failed", False, WARN, "not ours"),
    ],
)
def test_what_becomes_of_a_champion_that_is_not_on_record(
    aliases: Aliases, refusal: str, ours: bool, policy: PromotionConfig, verdict: str
) -> None:
    assert judge_unrecorded(aliases, refusal, ours, policy) == verdict


def test_a_passed_version_moved_by_hand_is_taken_over(name: str, sent: list[Any]) -> None:
    make_version(name)
    promote(name)
    make_version(name)
    sent.clear()
    versions.set_alias(name, "champion", "2")
    assert reconcile(name, REVERT) == "promoted"
    assert read_aliases(name) == Aliases("2", "1", None, "2")
    tags = tags_of(name, "2")
    assert (tags["promotion.decision"], tags["promotion.approver"]) == ("promoted", "by hand in MLflow")
    assert tags["promotion.previous"] == "1"
    [(event, payload)] = sent
    assert (event, about(payload)) == (
        CHAMPION_CHANGED,
        {"version": "2", "previous": "1", "how": "by hand in MLflow"},
    )
    assert told(payload) == (
        f"{name} version 2 was promoted",
        "It passed its gates, and was made champion by hand in MLflow.",
    )
    assert reconcile(name, REVERT) == "nothing"
    assert len(sent) == 1


@pytest.mark.parametrize("first", [True, False], ids=["to-the-champion-before", "to-none"])
def test_a_failed_version_moved_by_hand_is_moved_back(name: str, sent: list[Any], first: bool) -> None:
    made = make_version(name)
    if first:
        promote(name)
    bad = make_version(name, found=FAILING, alias="tried")
    sent.clear()
    versions.set_alias(name, "champion", bad.version)
    assert reconcile(name, REVERT) == "reverted"
    champion = made.version if first else None
    assert read_aliases(name).champion == champion
    assert tags_of(name, bad.version)["promotion.decision"] == "reverted"
    assert "kl_per_token" in tags_of(name, bad.version)["promotion.reason"]
    [(event, payload)] = sent
    assert event == PROMOTION_REVERTED
    assert payload["version"] == bad.version
    assert "kl_per_token" in payload["reason"]
    title, why = told(payload)
    assert title == f"{name} version {bad.version} was made champion by hand, and is not any more"
    assert why == f"It may not be the champion: {payload['reason']}"
    now = "Version 1 is the champion again." if first else "There is no champion now."
    assert payload["text"].splitlines()[1] == now
    assert reconcile(name, REVERT) == "nothing"


def test_a_champion_on_record_that_was_deleted_does_not_come_back(name: str, sent: list[Any]) -> None:
    make_version(name)
    promote(name)
    bad = make_version(name, found=FAILING)
    connection.client().delete_model_version(name, "1")
    versions.set_alias(name, "champion", bad.version)
    assert reconcile(name, REVERT) == "reverted"
    assert read_aliases(name).champion is None


def test_a_failed_version_stays_where_the_policy_only_warns(name: str, sent: list[Any]) -> None:
    make_version(name)
    promote(name)
    bad = make_version(name, found=FAILING)
    sent.clear()
    versions.set_alias(name, "champion", bad.version)
    assert reconcile(name, WARN) == "warned"
    assert read_aliases(name) == Aliases("2", "1", None, "2")
    assert tags_of(name, "2")["promotion.decision"] == "warned"
    [(event, payload)] = sent
    assert event == CHAMPION_CHANGED
    assert payload["how"] == "by hand in MLflow, ungated"
    title, why = told(payload)
    assert title == f"{name} version 2 is the champion without having passed its gates"
    assert why.startswith("It was made champion by hand in MLflow, and stays so: ")
    assert "kl_per_token" in why


def test_other_people_s_models_are_left_alone(name: str, sent: list[Any]) -> None:
    made = make_version(name)
    theirs = f"theirs-{name}"
    connection.client().create_registered_model(theirs)
    with connection.fluent():
        connection.client().create_model_version(theirs, source=made.source, run_id=made.run_id)
    versions.set_alias(theirs, "champion", "1")
    assert reconcile(theirs, REVERT) == "not ours"
    assert reconcile("no-such-model", REVERT) == "not ours"
    assert read_aliases(theirs) == Aliases("1")
    assert tags_of(theirs, "1") == {}
    assert sent == []


def test_an_unreachable_mlflow_changes_nothing_and_raises(
    name: str, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version(name)
    promote(name)
    make_version(name)
    versions.set_alias(name, "champion", "2")

    def unreachable(*_: Any) -> Any:
        raise TrackingError("MLflow is unreachable")

    with monkeypatch.context() as patch:
        patch.setattr(records, "read_record", unreachable)
        with pytest.raises(TrackingError, match="unreachable"):
            reconcile(name, REVERT)
    assert read_aliases(name).champion == "2"
    assert read_aliases(name).recorded == "1"


def test_the_models_with_a_champion_on_record_are_known(name: str, sent: list[Any]) -> None:
    make_version(name)
    assert name not in promotion.recorded_models()
    promote(name)
    assert name in promotion.recorded_models()
