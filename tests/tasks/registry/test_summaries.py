"""The first lines of a version's and a model's description, and that they are kept current."""

import logging
from typing import Any

import pytest

from alignment.config import AlignConfig, PromotionConfig, build_config
from alignment.errors import TrackingError
from alignment.judging.gates import judge
from tasks.registry import connection, current, descriptions, promotion, registration, summaries, versions
from tasks.registry.aliases import locked
from tests.registered import make_run, make_version, report, verdict_tags

ON = "on 2026-11-26 16:40 UTC"


def judged(**delta: Any) -> tuple[dict[str, str], dict[str, str]]:
    config, found = (
        build_config({"data": {"path": "texts.jsonl"}, "base": {"model": "HuggingFaceTB/SmolLM2-135M"}}),
        report(**delta),
    )
    judgement = judge(found, config.gates)
    return summaries.people_tags(config, found, judgement), summaries.kept_tags(config, judgement)


def test_people_read_six_tags_of_a_version_in_short() -> None:
    people, kept = judged(reward_gain=1.01, win_rate=0.957, kl_per_token=0.0814)
    assert people == {
        "verdict": "passed",
        "gain": "+1.01",
        "win rate": "95.7%",
        "KL": "0.081",
        "base": "HuggingFaceTB/SmolLM2-135M",
        "data": "texts.jsonl, split train",
    }
    assert kept["plumbline.verdict"] == "pass"
    assert kept["plumbline.sentence"].startswith("May be registered: ")
    assert kept["gate.win_rate"] == "passed"


def test_the_verdict_stands_first_and_then_what_happened_since() -> None:
    tags = {
        "plumbline.sentence": "May be registered: reward +1.01.",
        "plumbline.judged_again": "Run 7: KL too high.",
        "promotion.decision": "rejected",
        "promotion.approver": "Ann",
        "promotion.reason": "it rambles.",
        "promotion.time": "2026-11-26T16:40:12+00:00",
        "smoke.verdict": "passed",
        "smoke.reward": "1.0412",
        "smoke.time": "2026-11-27T08:00:00+00:00",
    }
    assert summaries.version_summary(tags).split("\n\n") == [
        "May be registered: reward +1.01.",
        "**Refused since**, so it is not promoted. Run 7: KL too high.",
        f"**Rejected** by Ann {ON}: it rambles.",
        "Smoke test passed on 2026-11-27 08:00 UTC, mean reward 1.0412.",
    ]


def decided(decision: str, approver: str = "Ann", **more: str) -> dict[str, str]:
    found = {"decision": decision, "approver": approver, "time": "2026-11-26T16:40:12+00:00"} | more
    return {f"promotion.{name}": value for name, value in found.items()}


NEVER = "it never passed"
HAND = "by hand in MLflow"


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ({}, ""),
        (decided("promoted", "", previous="1"), f"**Promoted** by somebody who gave no name {ON}, after version 1."),
        (decided("rolled back"), f"**Rolled back** by Ann {ON}."),
        (decided("failed"), f"**Its promotion failed midway**, by Ann {ON}."),
        (
            decided("reverted", HAND, reason=NEVER),
            f"**Taken back.** It was made the champion by hand in MLflow {ON}, and it never passed.",
        ),
        (
            decided("warned", HAND, reason=NEVER),
            f"**Champion without the gates.** It was made the champion {HAND} {ON}, although it never passed.",
        ),
    ],
    ids=["undecided", "promoted", "rolled back", "failed", "reverted", "warned"],
)
def test_a_decision_is_told_with_who_when_and_why(tags: dict[str, str], told: str) -> None:
    assert summaries.decision(tags) == told


# descriptions


def test_what_stands_below_the_mark_is_the_person_s_and_what_is_above_is_replaced() -> None:
    first = descriptions.with_ours("# By Ann", "ours")
    assert first == f"ours\n\n{descriptions.MARK}\n\n# By Ann"
    assert descriptions.with_ours(first, "newer") == f"newer\n\n{descriptions.MARK}\n\n# By Ann"
    assert not descriptions.is_theirs(first)
    assert descriptions.is_theirs("# By Ann")
    assert not descriptions.is_theirs(" ")


def test_a_description_that_is_too_long_says_that_it_was_cut_once() -> None:
    cut = descriptions.fit("x" * 6_000)
    assert len(cut) == descriptions.MAX_LENGTH
    again = descriptions.fit(f"ours {cut}")
    assert len(again) == descriptions.MAX_LENGTH
    assert again.count("cut here") == 1


def test_a_card_leaves_room_for_what_happens_later() -> None:
    card = descriptions.fit("x" * 6_000, descriptions.ROOM)
    assert len(card) == descriptions.MAX_LENGTH - descriptions.ROOM
    assert descriptions.can_be_cut(f"{'ours ' * 1_000}{card}")
    assert not descriptions.can_be_cut(f"{'ours ' * 1_000}{card}\n\nRead by Ann.")


# in MLflow


def description(name: str, version: str | None = None) -> str:
    client: Any = connection.client()
    found = client.get_model_version(name, version) if version else client.get_registered_model(name)
    return str(found.description or "")


def register(name: str, key: str) -> None:
    run_id, uri = make_run(name)
    tags = verdict_tags() | {
        "plumbline.sentence": f"May be registered: {key}.",
        "base": "trained here",
        "data": "grammar",
    }
    registration.register(run_id, uri, name, "challenger", key=key, description="## How it was made", tags=tags)


@pytest.mark.usefixtures("local")
def test_the_descriptions_follow_every_decision() -> None:
    name = "films"
    register(name, "one")
    assert description(name).startswith("**No champion yet.**\n\nChallenger: [version 1](#/models/films/versions/1?")
    assert description(name, "1").startswith("May be registered: one.\n\n[//]: # (")
    assert description(name, "1").endswith("## How it was made")

    promotion.make_champion.fn(promotion.find_candidate(name, None), "reads well", "Ann")
    register(name, "two")
    told = description(name)
    assert told.startswith(
        "**Champion: [version 1](#/models/films/versions/1?workflowType=machine_learning)** since 20"
    )
    assert "May be registered: one." in told
    assert "Challenger: [version 2]" in told
    assert "Base: trained here; data: grammar." in told
    assert "**Promoted** by Ann on " in description(name, "1")

    promotion.record_rejection.fn(promotion.find_candidate(name, None), "it rambles", "Bob")
    assert "**Rejected** by Bob on " in description(name, "2")
    versions.set_alias(name, "champion", "2")
    assert promotion.reconcile(name, PromotionConfig()) == "promoted"
    assert description(name).startswith("**Champion: [version 2]")
    assert "Previous: [version 1]" in description(name)
    promotion.restore_previous.fn(name, "", "Ann")
    assert description(name).startswith("**Champion: [version 1]")
    assert "**Rolled back** by Ann" in description(name, "2")


@pytest.mark.usefixtures("local")
def test_a_model_that_a_person_described_is_left_as_it_is() -> None:
    make_version("described")
    connection.client().update_registered_model("described", "Ours, for the shop.")
    with locked("described"):
        current.keep_current("described", "1")
    assert description("described") == "Ours, for the shop."


@pytest.mark.usefixtures("local")
def test_a_description_that_cannot_be_written_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_version("unwritable")

    def refuse(*_: str) -> None:
        raise TrackingError("MLflow at http://x: not allowed")

    monkeypatch.setattr(versions, "describe_model", refuse)
    with caplog.at_level(logging.WARNING, "plumbline"):
        promotion.make_champion.fn(promotion.find_candidate("unwritable", None), "", "Ann")
    assert "its description was not brought up to date: MLflow at http://x: not allowed" in caplog.text


def test_the_default_is_told_in_short() -> None:
    people = summaries.people_tags(AlignConfig(), report(), judge(report(), AlignConfig().gates))
    assert (people["base"], people["data"]) == ("trained here", "grammar")


@pytest.mark.usefixtures("local")
def test_what_a_person_wrote_is_not_cut_for_a_decision(caplog: pytest.LogCaptureFixture) -> None:
    name = "noted"
    register(name, "one")
    note = f"{'x' * 4_950}, read by Ann"
    connection.client().update_model_version(name, "1", note)
    with locked(name):
        current.keep_current(name, "1")
    assert description(name, "1") == note
    assert "no room for the last decision" in caplog.text
