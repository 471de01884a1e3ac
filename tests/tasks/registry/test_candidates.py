"""Which versions are refused and why, and the card of one that is not."""

import itertools
from typing import Any

import pytest

from alignment.config import AlignConfig
from alignment.errors import ModelError, PromotionError
from alignment.judging.gates import judge
from tasks.registry import records
from tasks.registry.candidates import Candidate, card, require_promotable, why_not
from tasks.registry.promotion import (
    find_candidate,
)
from tasks.registry.versions import RegisteredVersion
from tests.registered import make_version, report

pytestmark = pytest.mark.usefixtures("local")

FAILING = report(kl_per_token=0.31)
_names = (f"model-{number}" for number in itertools.count())


@pytest.fixture
def name() -> str:
    return next(_names)


RUN = {"plumbline.model_uri": "models:/m-1"}
PASSED = judge(report(), AlignConfig().gates)
FAILED = judge(FAILING, AlignConfig().gates)
GOOD_TAGS = {"plumbline.verdict": "pass", "gate.win_rate": "passed"}


@pytest.mark.parametrize(
    ("tags", "source", "run", "judgement", "reason"),
    [
        (GOOD_TAGS, "models:/m-1", RUN, PASSED, ""),
        ({"plumbline.kind": "anchor"} | GOOD_TAGS, "models:/m-1", RUN, PASSED, "it is the anchor"),
        ({}, "models:/m-1", RUN, PASSED, "it has no verdict"),
        ({"plumbline.verdict": "fail"}, "models:/m-1", RUN, PASSED, "it failed the gates"),
        (GOOD_TAGS | {"gate.kl": "failed"}, "models:/m-1", RUN, PASSED, "it failed the gates: kl"),
        (GOOD_TAGS, "models:/m-1", None, None, "the run that it came from is not in MLflow"),
        (GOOD_TAGS, "models:/m-2", RUN, PASSED, "its model is not the one that its run judged"),
        (GOOD_TAGS, "models:/m-1", {}, PASSED, "its model is not the one that its run judged"),
        (GOOD_TAGS, "models:/m-1", RUN, None, "no readable record"),
        (GOOD_TAGS, "models:/m-1", RUN, FAILED, "judged again, it fails. Not registered: KL per token 0.31 exceeds"),
    ],
    ids=[
        "passed",
        "anchor",
        "no-verdict",
        "failed",
        "one-gate-failed",
        "run-deleted",
        "another-model",
        "run-kept-no-model",
        "no-report",
        "fails-again",
    ],
)
def test_a_version_is_refused_for_what_its_tags_and_its_run_say(
    tags: dict[str, str], source: str, run: dict[str, str] | None, judgement: Any, reason: str
) -> None:
    version = RegisteredVersion("m", "2", (), "r", tags, source)
    found = why_not(version, run, judgement)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("base", "champion", "stale"),
    [
        ("models:/m/3", "3", False),
        ("models:/m/3", "4", True),
        ("models:/m/3", None, False),
        ("models:/m/3", "5", False),
        ("models:/other/3", "4", False),
        ("", "4", False),
    ],
    ids=["current", "replaced", "no-champion", "it-is-champion-itself", "another-model", "no-registered-base"],
)
def test_a_version_judged_against_a_former_champion_is_stale(base: str, champion: str | None, stale: bool) -> None:
    candidate = Candidate(name="m", version="5", champion=champion, refusal="", base=base)
    if stale:
        with pytest.raises(
            PromotionError, match=r"judged against version 3, and the champion is now version 4; run re"
        ):
            require_promotable(candidate)
    else:
        require_promotable(candidate)


def test_the_challenger_is_found_with_its_record(name: str) -> None:
    made = make_version(name)
    candidate = find_candidate(name, None)
    assert (candidate.version, candidate.champion, candidate.refusal) == (made.version, None, "")
    shown = card(candidate)
    assert "There is no champion yet" in shown
    assert "- win rate 0.93, bound ≥ 0.55: passed" in shown
    assert "reward, mean" in shown
    assert made.run_id in shown


def test_the_card_shows_the_best_the_worst_and_the_most_changed_texts(name: str) -> None:
    make_version(name)
    _, best, worst, changed = card(find_candidate(name, None)).split("## Samples: ")
    for section, first, second in ((best, 1, 4), (worst, 2, 0), (changed, 1, 2)):
        assert section.index(f"text {first}") < section.index(f"text {second}")
        assert section.count("text ") == 2


def test_without_a_reward_the_card_shows_the_first_texts(name: str) -> None:
    make_version(name)
    found = find_candidate(name, None)
    unscored = [row.model_copy(update={"aligned_reward": None, "base_reward": None}) for row in found.samples]
    _, shown = card(found.model_copy(update={"samples": tuple(unscored)})).split("## Samples")
    assert shown.index("text 0") < shown.index("text 1")
    assert "best" not in shown


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"found": FAILING}, "failed the gates: kl_per_token"),
        ({"found": FAILING, "tags": {"plumbline.verdict": "pass", "gate.kl_per_token": "passed"}}, "judged again"),
        ({"record": False}, "no readable record"),
        ({"tags": {"plumbline.kind": "anchor"}}, "anchor"),
        ({"run_tags": {"plumbline.model_uri": "models:/m-0"}}, "not the one that its run judged"),
    ],
    ids=["failed", "forged-tags", "no-record", "anchor", "another-model"],
)
def test_a_version_that_does_not_deserve_it_is_refused(name: str, options: dict[str, Any], reason: str) -> None:
    make_version(name, **options)
    with pytest.raises(PromotionError, match=reason) as raised:
        find_candidate(name, None)
    assert raised.value.exit_code == 3
    assert "\n" not in str(raised.value)


def test_a_record_that_cannot_be_read_is_none(name: str) -> None:
    made = make_version(name)
    records.log_text(made.run_id, records.REPORT, '{"prompts": "many"}')
    with pytest.raises(PromotionError, match="no readable record"):
        find_candidate(name, None)


def test_a_model_version_or_challenger_that_does_not_exist_is_bad_input(name: str) -> None:
    with pytest.raises(ModelError, match=f"models:/{name}: no such model"):
        find_candidate(name, None)
    make_version(name, alias="other")
    with pytest.raises(ModelError, match="challenger: no version has this alias"):
        find_candidate(name, None)
    with pytest.raises(ModelError, match=f"models:/{name}/7: no such version"):
        find_candidate(name, 7)
