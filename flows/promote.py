"""The flows `promote`, which makes a version the champion once a person approves, and `rollback`, which undoes that."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import repeat
from math import ceil
from typing import Annotated, Any
from uuid import UUID

from prefect import pause_flow_run
from prefect.client.schemas.objects import State
from prefect.exceptions import FlowPauseTimeout, NotPausedError
from prefect.flow_runs import resume_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field, create_model

from alignment.config import PromotionConfig
from alignment.errors import PlumblineError, PromotionError
from alignment.judging.card import in_markdown
from flows.align import connect
from flows.beside import beside
from flows.flow import REGISTRY, named_flow
from flows.settings import MODEL_NAME, PROMOTION, load_promotion
from tasks import approvals, notices
from tasks.addresses import flow_run_url
from tasks.events import APPROVAL_REMINDED, APPROVAL_WAITING, emit
from tasks.registry.candidates import Candidate, card
from tasks.registry.promotion import (
    Outcome,
    check_candidate,
    make_champion,
    record_rejection,
    restore_previous,
)
from tasks.run_log import run_logger
from tasks.run_names import name_run

LOOK_EVERY = 2  # seconds between two checks for an answer
SPARE = 600  # seconds that Prefect's timeout is longer than this flow's, which rejects the version by itself
AUTOMATIC = "automatic"
ITSELF = "Plumbline"  # whose name a rejection has that nobody gave

ModelName = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=2_000)]
WHY = "Why; the version keeps it"
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S", description="Your name; the version keeps it")]


class Approval(RunInput):
    """A decision on a candidate, and who made it: what Prefect's dialog asks a person for."""

    approver: Name
    approve: bool = Field(False, description="On: this version becomes the champion. Off: it is rejected.")
    reason: Text = Field("", description=WHY)


@named_flow(approvals.FLOW, REGISTRY, run_name="promote {model_name}")
def promote(
    model_name: ModelName = MODEL_NAME,
    version: Annotated[int, Field(ge=1)] | None = None,
    reason: Text = "",
    approver: Annotated[str, Field(max_length=200)] = "",
    yes: bool = False,
) -> Outcome | State[Any]:
    """Make a version the champion: the gates are checked again, a person approves, then the aliases move together.

    Args:
        model_name: Name of the registered model.
        version: Number of the version; empty takes the challenger.
        reason: Why; kept on the version.
        approver: Who approves; kept on the version.
        yes: Approve without a person, where flows/configs/promotion.yaml allows it.
    """
    policy = load_promotion(PROMOTION)  # not a field of the form: who starts a run could allow it to themselves
    connect()
    candidate = check_candidate(model_name, version)
    name_run(f"promote {candidate.title}")
    if candidate.settled:
        answer = Approval(approve=True, approver=approver.strip() or AUTOMATIC, reason=reason)
    elif yes:
        answer = approve_automatically(policy, approver, reason)
    else:
        approvals.label_run(flow_run.id, candidate)
        with told_if_undecided(candidate):
            return carry_out(candidate, wait_for_approval(candidate, policy, approver, reason))
    return carry_out(candidate, answer)


@named_flow(approvals.FLOW, REGISTRY, run_name="promote {model_name}")
def promote_answered(model_name: str, version: int, champion: str | None, answer: Approval) -> Outcome | State[Any]:
    """Carry out an answer that was given in a terminal; the gates are checked again.

    Args:
        model_name: Name of the registered model.
        version: Number of the version that was shown.
        champion: The champion's version when it was shown.
        answer: What the person decided.
    """
    connect()
    candidate = check_candidate(model_name, version)
    name_run(f"promote {candidate.title}")
    return carry_out(candidate.model_copy(update={"champion": champion}), answer)


@named_flow("rollback", REGISTRY, run_name="roll back {model_name}")
def rollback(
    model_name: ModelName = MODEL_NAME,
    reason: Text = "",
    approver: Annotated[str, Field(max_length=200)] = "",
) -> Outcome:
    """Exchange champion and previous; a second rollback undoes the first.

    Args:
        model_name: Name of the registered model.
        reason: Why; kept on both versions.
        approver: Who decided it; kept on both versions.
    """
    connect()
    outcome = restore_previous(model_name, reason, approver)
    approvals.show(decided(outcome), outcome.sentence)
    return outcome


def approve_automatically(promotion: PromotionConfig, approver: str, reason: str) -> Approval:
    """An approval without a person. Raises PromotionError unless the configuration allows it."""
    if not promotion.automatic:
        raise PromotionError(
            "--yes (`yes` in the form) approves without a person, and promotion.automatic = false: set it to true in "
            "flows/configs/promotion.yaml, or promote without it and approve by hand"
        )
    return Approval(approve=True, approver=approver.strip() or AUTOMATIC, reason=reason)


def wait_for_approval(candidate: Candidate, promotion: PromotionConfig, approver: str, reason: str) -> Approval:
    """Pause the run until a person answers, who is notified and reminded; after the timeout the answer is a rejection.

    Meanwhile the run's page shows the card.
    """
    seconds = promotion.timeout_hours * 3_600
    since = datetime.now(UTC)
    until = since + timedelta(seconds=seconds)
    page = flow_run_url(flow_run.id)
    others = approvals.others_waiting(flow_run.id)
    everything = approvals.show(card(candidate), f"{candidate.title} waits for an approval")
    form = dialog(approvals.dialog(candidate, until, others, everything), approver.strip(), reason)
    too_late = Approval(approver=ITSELF, reason=f"nobody answered in {promotion.timeout_hours:g} h")

    def remind() -> None:
        waiting = [other.title for other in approvals.others_waiting(flow_run.id)]
        told = notices.reminder(candidate, since, until, waiting, page)
        emit(APPROVAL_REMINDED, candidate.name, told | {"version": candidate.version})

    told = notices.waiting(candidate, until, [other.title for other in others], page)
    emit(APPROVAL_WAITING, candidate.name, told | {"version": candidate.version})
    try:
        with (
            beside(partial(give_for, UUID(flow_run.id), too_late), [seconds], "the rejection that nobody gave"),
            beside(remind, reminders(promotion.remind_hours * 3_600, seconds), "a reminder"),
        ):
            return pause_flow_run(form, timeout=int(seconds) + SPARE, poll_interval=LOOK_EVERY)
    except FlowPauseTimeout:
        return too_late


def dialog(description: str, approver: str, reason: str) -> type[Approval]:
    """The form with what is known already filled in, each field under its own bounds.

    `RunInput.with_initial_data` would leave the bounds out.
    """
    given: dict[str, Any] = {"approver": (Name, approver or ...), "reason": (Text, Field(reason, description=WHY))}
    form = create_model("Approval", __base__=Approval, **given)
    form._description = description
    return form


def give_for(run: UUID, answer: Approval) -> None:
    """Answer in place of a person, unless one has.

    Prefect's own timeout would end the run as Failed, and a rejection is no failure.
    """
    with suppress(NotPausedError, FlowPauseTimeout):
        resume_flow_run(run, run_input=answer.model_dump())


def reminders(every: float, within: float) -> Iterator[float]:
    """The seconds before each reminder: one after every so many, but not at the end of `within`; 0 never does."""
    return repeat(every, ceil(within / every) - 1 if every else 0)


@contextmanager
def told_if_undecided(candidate: Candidate) -> Iterator[None]:
    """Say on the run's page that nobody is waited for any more, if the block raises an exception."""
    try:
        yield
    except BaseException as error:
        stopped = "The run was stopped before a decision was carried out. Start `promote` again to be asked again."
        why = in_markdown(str(error)) if isinstance(error, PlumblineError) else stopped
        try:
            page = f"# Ended without a decision\n\n{why}\n\n{card(candidate)}"
            approvals.show(page, f"{candidate.title}: ended without a decision")
        except Exception as unshown:  # noqa: BLE001 - the error that ended it matters more
            run_logger().warning("that %s is undecided is not shown in Prefect: %s", candidate.title, unshown)
        raise


def carry_out(candidate: Candidate, answer: Approval) -> Outcome | State[Any]:
    """Promote or reject the candidate, and show the decision; a rejection ends the run as Rejected."""
    approver, reason = answer.approver.strip(), answer.reason.strip()
    if answer.approve:
        outcome = make_champion(candidate, reason, approver)
    else:
        outcome = record_rejection(candidate, reason, approver)
    approvals.show(f"{decided(outcome)}\n\n{card(candidate)}", outcome.sentence)
    if outcome.decision == "rejected":
        return Completed(name="Rejected", message=outcome.sentence, data=outcome)
    return outcome


def decided(outcome: Outcome) -> str:
    """The decision as Markdown."""
    return f"# {outcome.decision.capitalize()}\n\n{outcome.sentence}"
