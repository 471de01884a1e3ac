"""The decisions on a registered model: promotion, rejection, rollback, and the check of a champion set by hand."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from prefect import task
from pydantic import BaseModel, ConfigDict

from alignment.aliases import PREVIOUS
from alignment.config import PromotionConfig
from alignment.errors import PlumblineError, PromotionError
from alignment.judging.report import EvalReport
from tasks import notices
from tasks.events import CHAMPION_CHANGED, PROMOTION_REJECTED, PROMOTION_REVERTED, emit
from tasks.registry import versions
from tasks.registry.aliases import RECORDED, Aliases, locked, move_aliases, read_aliases
from tasks.registry.candidates import Candidate, choose, examine, require_promotable
from tasks.registry.current import keep_current
from tasks.registry.marks import APPROVER, BEFORE, BY_HAND, DECISION, HISTORY, REASON, TIME
from tasks.registry.pages import version_page
from tasks.registry.versions import RegisteredVersion
from tasks.running import RETRIES

logger = logging.getLogger("plumbline")

REMEMBERED = 20  # the last decisions on a version that its history holds

Verdict = Literal["nothing", "not ours", "promoted", "reverted", "warned"]


class Outcome(BaseModel):
    """The outcome of a promotion or a rollback."""

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
    """The version (None: the challenger) with its gates applied again.

    Raises ModelError if there is none, PromotionError if it may not become the champion.
    """
    return find_candidate(name, version)


def find_candidate(name: str, version: int | None) -> Candidate:
    """What `check_candidate` does, for callers outside of a flow."""
    found, aliases = choose(name, version)
    candidate = examine(found, aliases.champion)
    if aliases.after_promotion(found.version) == aliases and not _is_unfinished(found):
        return candidate.model_copy(update={"settled": True})
    require_promotable(candidate)
    return candidate


@task(name="move aliases", **RETRIES)
def make_champion(candidate: Candidate, reason: str, approver: str) -> Outcome:
    """Make the candidate the champion and the champion previous; repeating it changes nothing, or completes a crash.

    Raises PromotionError if another promotion has changed the champion since the candidate was checked.
    """
    name, version = candidate.name, candidate.version
    with locked(name):
        before = read_aliases(name)
        if before.champion not in (candidate.champion, version):
            raise PromotionError(
                f"{candidate.title} is not promoted: while it was decided, the champion changed from "
                f"{_named(candidate.champion)} to {_named(before.champion)}; look at that one, then promote again"
            )
        after = before.after_promotion(version)
        if after == before and not _is_unfinished(versions.get_version(name, version)):
            return Outcome(decision="unchanged", model_name=name, version=version)
        _decide_and_move(name, before, after, version, "approved", reason, approver)
        _tag_outcome(name, version, "promoted")
        keep_current(name, version)
    outcome = Outcome(
        decision="promoted",
        model_name=name,
        version=version,
        previous=after.previous,
        approver=approver,
        reason=reason,
    )
    title = f"{candidate.title} was promoted"
    _announce_champion(name, version, after.previous, "promotion", title, outcome.sentence, candidate.report)
    return outcome


@task(name="reject", **RETRIES)
def record_rejection(candidate: Candidate, reason: str, approver: str) -> Outcome:
    """Tag the version as rejected; no alias moves. If it has become the champion meanwhile, nothing is done."""
    with locked(candidate.name):
        if candidate.version == read_aliases(candidate.name).champion != candidate.champion:
            return Outcome(decision="unchanged", model_name=candidate.name, version=candidate.version)
        _tag_decision(candidate.name, candidate.version, "rejected", reason, approver, candidate.champion)
        _add_to_history(candidate.name, candidate.version)
        keep_current(candidate.name, candidate.version)
    outcome = Outcome(
        decision="rejected", model_name=candidate.name, version=candidate.version, approver=approver, reason=reason
    )
    told = notices.rejected(candidate.title, approver, reason, version_page(candidate.name, candidate.version))
    emit(PROMOTION_REJECTED, candidate.name, {"version": candidate.version, "reason": reason} | told)
    return outcome


@task(name="roll back", **RETRIES)
def restore_previous(name: str, reason: str, approver: str) -> Outcome:
    """Exchange champion and previous. Raises PromotionError if there is no previous version."""
    with locked(name):
        before = read_aliases(name)
        after = before.after_rollback()
        if after == before or after.champion is None:
            raise PromotionError(
                f"models:/{name}@{PREVIOUS}: no version has this alias, so there is nothing to roll back to; "
                "promote the version that you want"
            )
        _decide_and_move(name, before, after, after.champion, "promoted", reason or "rollback", approver)
        if after.previous is not None:
            with _logging_failures(name, after.previous):
                _tag_decision(name, after.previous, "rolled back", reason, approver, None)
            _add_to_history(name, after.previous)
        keep_current(name, *filter(None, (after.champion, after.previous)))
    outcome = Outcome(
        decision="rolled back",
        model_name=name,
        version=after.champion,
        previous=after.previous,
        approver=approver,
        reason=reason,
    )
    title = f"{name} was rolled back to version {after.champion}"
    _announce_champion(name, after.champion, after.previous, "rollback", title, outcome.sentence)
    return outcome


def judge_unrecorded(aliases: Aliases, refusal: str, ours: bool, policy: PromotionConfig) -> Verdict:
    """What to do about a champion that is not the one on record; `refusal` is the reason against it, if any."""
    if aliases.champion in (None, aliases.recorded):
        return "nothing"
    if not ours:
        return "not ours"
    if not refusal:
        return "promoted"
    return "reverted" if policy.when_ungated == "revert" else "warned"


def reconcile(name: str, policy: PromotionConfig) -> Verdict:
    """Check a model's champion: one that was set by hand is recorded as promoted, reverted, or warned of."""
    if versions.read_model(name) is None:
        return "not ours"
    with locked(name):
        before = read_aliases(name)
        champion = before.champion
        if champion is None or champion == before.recorded:
            return "nothing"
        ours = before.recorded is not None or versions.is_ours(name)
        version = versions.get_version(name, champion)
        candidate = Candidate(name=name, version=champion, champion=before.recorded, refusal="")
        if ours:
            candidate = examine(version, before.recorded)
        refusal = candidate.refusal
        verdict = judge_unrecorded(before, refusal, ours, policy)
        if verdict == "not ours":
            return verdict
        after = before.after_revert() if verdict == "reverted" else before.after_promotion(champion)
        if after.champion is not None and versions.find(name, after.champion) is None:  # deleted meanwhile
            after = replace(after, champion=None)
        if verdict == "promoted" and _is_unfinished(version):  # its approver stays
            move_aliases(name, before, after)
            _tag_outcome(name, champion, verdict)
        else:
            _decide_and_move(name, before, after, champion, verdict, refusal, BY_HAND)
        keep_current(name, champion)
    logger.info("models:/%s: champion version %s %s%s", name, champion, verdict, f" ({refusal})" if refusal else "")
    _announce_by_hand(name, champion, verdict, after, candidate)
    return verdict


def recorded_models() -> list[str]:
    """The names of the models with a champion on record."""
    return versions.models_with_tag(RECORDED)


def _is_unfinished(version: RegisteredVersion) -> bool:
    """Whether a promotion of the version was cut off midway."""
    return version.tags.get(DECISION) == "approved"


def _decide_and_move(
    name: str, before: Aliases, after: Aliases, version: str, decision: str, reason: str, approver: str
) -> None:
    """Tag the version with the decision, then move the aliases; if that fails, the tag becomes `failed`."""
    replaced = before.recorded if before.champion == version else before.champion
    _tag_decision(name, version, decision, reason, approver, replaced)
    try:
        move_aliases(name, before, after)
    except BaseException:
        _tag_outcome(name, version, "failed")
        raise
    if decision != "approved":  # the history gets the outcome of an approval
        _add_to_history(name, version)


def _tag_decision(name: str, version: str, decision: str, reason: str, approver: str, before: str | None) -> None:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    # the decision is set last: a reader who sees it sees the rest
    tags = {REASON: reason, APPROVER: approver, TIME: when, BEFORE: before or "", DECISION: decision}
    versions.tag_version(name, version, tags)


def _tag_outcome(name: str, version: str, decision: str) -> None:
    """Replace the decision on the version by its outcome."""
    with _logging_failures(name, version):
        versions.tag_version(name, version, {DECISION: decision})
    _add_to_history(name, version)


def _add_to_history(name: str, version: str) -> None:
    """Add the version's last decision to its history, one line per decision."""
    with _logging_failures(name, version):
        tags = versions.get_version(name, version).tags
        when, decision, approver, reason = (tags.get(tag, "") for tag in (TIME, DECISION, APPROVER, REASON))
        line = " ".join(f"{when} {decision}, {approver or 'no name given'}{f': {reason}' if reason else ''}".split())
        earlier = tags.get(HISTORY, "").splitlines()
        if line not in earlier:
            versions.tag_version(name, version, {HISTORY: "\n".join([*earlier, line][-REMEMBERED:])})


@contextmanager
def _logging_failures(name: str, version: str) -> Iterator[None]:
    """Log a failure to set tags: the aliases have moved already."""
    try:
        yield
    except PlumblineError as error:
        logger.warning("models:/%s/%s: its promotion tags were not set: %s", name, version, error)


def _announce_champion(
    name: str, version: str, previous: str | None, how: str, title: str, sentence: str, report: EvalReport | None = None
) -> None:
    told = notices.changed(title, sentence, report, version_page(name, version))
    emit(CHAMPION_CHANGED, name, {"version": version, "previous": previous or "", "how": how} | told)


def _announce_by_hand(name: str, champion: str, verdict: Verdict, after: Aliases, candidate: Candidate) -> None:
    """Tell what became of a champion that was set by hand."""
    title, refusal = candidate.title, candidate.refusal
    if verdict == "reverted":
        told = notices.reverted(title, after.champion, refusal, version_page(name, champion))
        about = {"version": champion, "champion": after.champion or "", "reason": refusal}
        emit(PROMOTION_REVERTED, name, about | told)
        return
    if verdict == "warned":
        title = f"{title} is the champion without having passed its gates"
        how, sentence = f"{BY_HAND}, ungated", f"It was made champion by hand in MLflow, and stays so: {refusal}"
    else:
        title = f"{title} was promoted"
        how, sentence = BY_HAND, "It passed its gates, and was made champion by hand in MLflow."
    _announce_champion(name, champion, after.previous, how, title, sentence, candidate.report)


def _named(version: str | None) -> str:
    return "none" if version is None else f"version {version}"
