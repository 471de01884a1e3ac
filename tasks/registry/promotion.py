"""Promotion, rejection and rollback, and what is made of an alias that was moved by hand: the registry's decisions."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from httpx import HTTPError
from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ConfigDict

from alignment.config import PromotionConfig
from alignment.errors import PlumblineError, PromotionError
from tasks.announcing import announce
from tasks.events import CHAMPION_CHANGED, PROMOTION_REVERTED
from tasks.registry import versions
from tasks.registry.aliases import DECISION, RECORDED, Standing, alone, change, read_standing
from tasks.registry.candidates import Candidate, card, choose, examine, require_promotable
from tasks.registry.versions import RegisteredVersion
from tasks.running import RETRIES, run_logger

logger = logging.getLogger("plumbline")

REASON, APPROVER, TIME, BEFORE, HISTORY = (
    f"promotion.{name}" for name in ("reason", "approver", "time", "previous", "history")
)
REMEMBERED = 20  # decisions on a version, the last ones
BY_HAND = "by hand in MLflow"

Verdict = Literal["nothing", "not ours", "promoted", "reverted", "warned"]


class Outcome(BaseModel):
    """What became of a promotion or a rollback."""

    model_config = ConfigDict(frozen=True)

    decision: Literal["promoted", "unchanged", "rejected", "rolled back"]
    model_name: str
    version: str
    previous: str | None = None
    approver: str = ""
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What happened, in one line."""
        who = f" by {self.approver}" if self.approver else ""
        why = f": {self.reason}" if self.reason else ""
        name = f"{self.model_name} version {self.version}"
        before = f", after version {self.previous}" if self.previous else ""
        return {
            "promoted": f"{name} is the champion{before}; approved{who}{why}",
            "unchanged": f"{name} is the champion already; nothing was changed",
            "rejected": f"{name} was rejected{who}{why}",
            "rolled back": f"{name} is the champion again{before}; rolled back{who}{why}",
        }[self.decision]


@task(name="check candidate", **RETRIES)
def check_candidate(name: str, version: int | None) -> Candidate:
    """The version (None: the challenger) with its gates judged again.

    Raises ModelError where there is none, PromotionError where it may not become the champion.
    """
    return find_candidate(name, version)


def find_candidate(name: str, version: int | None) -> Candidate:
    """As `check_candidate`, outside of a flow."""
    found, standing = choose(name, version)
    candidate = examine(found, standing.champion)
    if standing.promoted(found.version) == standing and not _is_unfinished(found):
        return candidate.model_copy(update={"settled": True})
    require_promotable(candidate)
    return candidate


@task(name="move aliases", **RETRIES)
def promote_candidate(candidate: Candidate, reason: str, approver: str) -> Outcome:
    """Make the candidate the champion and the champion previous; once more changes nothing, after a crash it finishes.

    Raises PromotionError where another promotion has changed the champion since the candidate was looked at.
    """
    name, version = candidate.name, candidate.version
    with alone(name):
        before = read_standing(name)
        if before.champion not in (candidate.champion, version):
            raise PromotionError(
                f"{candidate.title} is not promoted: while it was decided, the champion changed from "
                f"{_named(candidate.champion)} to {_named(before.champion)}; look at that one, then promote again"
            )
        after = before.promoted(version)
        if after == before and not _is_unfinished(versions.get_version(name, version)):
            return Outcome(decision="unchanged", model_name=name, version=version)
        _decide(name, before, after, version, "approved", reason, approver)
        _note(name, version, "promoted")
    _tell_champion(name, version, after.previous, "promotion")
    return Outcome(
        decision="promoted",
        model_name=name,
        version=version,
        previous=after.previous,
        approver=approver,
        reason=reason,
    )


@task(name="reject", **RETRIES)
def reject_candidate(candidate: Candidate, reason: str, approver: str) -> Outcome:
    """Write the rejection on the version; no alias moves. Where it became the champion meanwhile, nothing is done."""
    with alone(candidate.name):
        if candidate.version == read_standing(candidate.name).champion != candidate.champion:
            return Outcome(decision="unchanged", model_name=candidate.name, version=candidate.version)
        _sign(candidate.name, candidate.version, "rejected", reason, approver, candidate.champion)
        _remember(candidate.name, candidate.version)
    return Outcome(
        decision="rejected", model_name=candidate.name, version=candidate.version, approver=approver, reason=reason
    )


@task(name="roll back", **RETRIES)
def roll_back(name: str, reason: str, approver: str) -> Outcome:
    """Exchange champion and previous. Raises PromotionError where there is nothing to go back to."""
    with alone(name):
        before = read_standing(name)
        after = before.rolled_back()
        if after == before or after.champion is None:
            raise PromotionError(
                f"models:/{name}@previous: no version has this alias, so there is nothing to roll back to; "
                "promote the version that you want"
            )
        _decide(name, before, after, after.champion, "promoted", reason or "rollback", approver)
        if after.previous is not None:
            with _where_possible(name, after.previous):
                _sign(name, after.previous, "rolled back", reason, approver, None)
            _remember(name, after.previous)
    _tell_champion(name, after.champion, after.previous, "rollback")
    return Outcome(
        decision="rolled back",
        model_name=name,
        version=after.champion,
        previous=after.previous,
        approver=approver,
        reason=reason,
    )


@task(name="show promotion")
def show_promotion(outcome: Outcome, candidate: Candidate | None = None) -> None:
    """The decision, and what it was decided by, as a Markdown artifact; where Prefect is away, nothing is shown."""
    parts = [f"# {outcome.decision.capitalize()}", outcome.sentence]
    if candidate is not None:
        parts.append(card(candidate))
    try:
        create_markdown_artifact(key="promotion", markdown="\n\n".join(parts), description=outcome.sentence)
    except (HTTPError, OSError) as error:
        run_logger().warning("the decision could not be shown in Prefect: %s", error)


def judge_by_hand(standing: Standing, refusal: str, ours: bool, policy: PromotionConfig) -> Verdict:
    """What to make of a champion that is not the one on record; `refusal` says what speaks against it, if anything."""
    if standing.champion in (None, standing.recorded):
        return "nothing"
    if not ours:
        return "not ours"
    if not refusal:
        return "promoted"
    return "reverted" if policy.when_ungated == "revert" else "warned"


def reconcile(name: str, policy: PromotionConfig) -> Verdict:
    """Look at the registry anew, and take over, revert or warn of a champion that was made so by hand."""
    if versions.read_model(name) is None:
        return "not ours"
    with alone(name):
        before = read_standing(name)
        champion = before.champion
        if champion is None or champion == before.recorded:
            return "nothing"
        ours = before.recorded is not None or versions.is_ours(name)
        version = versions.get_version(name, champion)
        refusal = examine(version, before.recorded).refusal if ours else ""
        verdict = judge_by_hand(before, refusal, ours, policy)
        if verdict == "not ours":
            return verdict
        after = before.reverted() if verdict == "reverted" else before.promoted(champion)
        if after.champion is not None and versions.find(name, after.champion) is None:  # deleted meanwhile
            after = replace(after, champion=None)
        if verdict == "promoted" and _is_unfinished(version):  # its approver stays
            change(name, before, after)
            _note(name, champion, verdict)
        else:
            _decide(name, before, after, champion, verdict, refusal, BY_HAND)
    logger.info("models:/%s: champion version %s %s%s", name, champion, verdict, f" ({refusal})" if refusal else "")
    if verdict == "reverted":
        announce(PROMOTION_REVERTED, name, {"version": champion, "champion": after.champion or "", "reason": refusal})
    else:
        _tell_champion(name, champion, after.previous, f"{BY_HAND}, ungated" if verdict == "warned" else BY_HAND)
    return verdict


def recorded_models() -> list[str]:
    """The models that have a champion on record."""
    return versions.models_with_tag(RECORDED)


def _is_unfinished(version: RegisteredVersion) -> bool:
    """Whether a promotion of the version died midway."""
    return version.tags.get(DECISION) == "approved"


def _decide(
    name: str, before: Standing, after: Standing, version: str, decision: str, reason: str, approver: str
) -> None:
    """Write the decision on the version, then move the aliases; where they do not move, the tag says so."""
    replaced = before.recorded if before.champion == version else before.champion
    _sign(name, version, decision, reason, approver, replaced)
    try:
        change(name, before, after)
    except BaseException:
        _note(name, version, "failed")
        raise
    if decision != "approved":  # which is remembered by its outcome
        _remember(name, version)


def _sign(name: str, version: str, decision: str, reason: str, approver: str, before: str | None) -> None:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    # in this order: whoever sees the decision sees the rest
    tags = {REASON: reason, APPROVER: approver, TIME: when, BEFORE: before or "", DECISION: decision}
    versions.tag_version(name, version, tags)


def _note(name: str, version: str, decision: str) -> None:
    """What came of a decision that is on the version."""
    with _where_possible(name, version):
        versions.tag_version(name, version, {DECISION: decision})
    _remember(name, version)


def _remember(name: str, version: str) -> None:
    """Add the decision that is on the version to those before it, a line each."""
    with _where_possible(name, version):
        tags = versions.get_version(name, version).tags
        when, decision, approver, reason = (tags.get(tag, "") for tag in (TIME, DECISION, APPROVER, REASON))
        line = " ".join(f"{when} {decision}, {approver or 'no name given'}{f': {reason}' if reason else ''}".split())
        earlier = tags.get(HISTORY, "").splitlines()
        if line not in earlier:
            versions.tag_version(name, version, {HISTORY: "\n".join([*earlier, line][-REMEMBERED:])})


@contextmanager
def _where_possible(name: str, version: str) -> Iterator[None]:
    """Tags that must not stand in the way of what is done already."""
    try:
        yield
    except PlumblineError as error:
        logger.warning("models:/%s/%s: its promotion tags were not set: %s", name, version, error)


def _tell_champion(name: str, version: str, previous: str | None, how: str) -> None:
    announce(CHAMPION_CHANGED, name, {"version": version, "previous": previous or "", "how": how})


def _named(version: str | None) -> str:
    return "none" if version is None else f"version {version}"
