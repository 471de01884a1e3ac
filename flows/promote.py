"""The flows `promote`, which makes a version the champion once a person approves, and `rollback`, which undoes that."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from threading import Timer
from typing import Annotated, Any, Literal
from uuid import UUID

from httpx import HTTPError
from prefect import flow, pause_flow_run
from prefect.client.schemas.objects import State
from prefect.exceptions import FlowPauseTimeout, NotPausedError
from prefect.flow_runs import resume_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from alignment.config import PromotionConfig
from alignment.errors import PromotionError
from flows.align import connect
from flows.settings import MODEL_NAME, PROMOTION, load_promotion
from tasks.registry.candidates import Candidate, card
from tasks.registry.promotion import (
    Outcome,
    check_candidate,
    make_champion,
    record_rejection,
    restore_previous,
    show_decision,
)
from tasks.running import run_logger

LOOK_EVERY = 2  # seconds between two checks for an answer
SPARE = 600  # seconds that Prefect's timeout is longer than this flow's, which rejects the version by itself
AUTOMATIC = "automatic"

ModelName = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=2_000)]


class Approval(RunInput):
    """A person's decision on a candidate."""

    decision: Literal["reject", "approve"] = Field("reject", description="Make this version the champion?")
    approver: str = Field("", max_length=200, description="Your name; an approval needs one")
    reason: str = Field("", max_length=2_000, description="Why; it is kept on the version")


@flow(name="promote", flow_run_name="promote-{model_name}")
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
    if candidate.settled:
        answer = Approval(decision="approve", approver=approver, reason=reason)
    elif yes:
        answer = approve_automatically(policy, approver, reason)
    else:
        answer = wait_for_approval(candidate, policy, approver, reason)
    return carry_out(candidate, answer)


@flow(name="promote", flow_run_name="promote-{model_name}")
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
    return carry_out(candidate.model_copy(update={"champion": champion}), answer)


@flow(name="rollback", flow_run_name="rollback-{model_name}")
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
    show_decision(outcome)
    return outcome


def approve_automatically(promotion: PromotionConfig, approver: str, reason: str) -> Approval:
    """An approval without a person. Raises PromotionError unless the configuration allows it."""
    if not promotion.automatic:
        raise PromotionError(
            "--yes (`yes` in the form) approves without a person, and promotion.automatic = false: set it to true in "
            "flows/configs/promotion.yaml, or promote without it and approve by hand"
        )
    return Approval(decision="approve", approver=approver or AUTOMATIC, reason=reason)


def wait_for_approval(candidate: Candidate, promotion: PromotionConfig, approver: str, reason: str) -> Approval:
    """Pause the run with the card until a person answers; after the timeout the answer is a rejection.

    An approval without a name is asked for again.
    """
    seconds = promotion.timeout_hours * 3_600
    too_late = Approval(decision="reject", reason=f"nobody answered in {promotion.timeout_hours:g} h")
    description = card(candidate)
    try:
        with answer_after(seconds, too_late):
            while True:
                form = Approval.with_initial_data(description=description, approver=approver, reason=reason)
                answer = pause_flow_run(form, timeout=int(seconds) + SPARE, poll_interval=LOOK_EVERY)
                if answer.decision == "reject" or answer.approver.strip():
                    return answer
                run_logger().warning("the approval names no approver; the run waits for one that does")
                description, reason = f"**An approval needs your name.**\n\n{card(candidate)}", answer.reason
    except FlowPauseTimeout:
        return too_late


@contextmanager
def answer_after(seconds: float, answer: Approval) -> Iterator[None]:
    """Give `answer` in place of a person after so many seconds.

    Prefect's own timeout would end the run as Failed, and a rejection is no failure.
    """
    context, run_id = copy_context(), UUID(flow_run.id)

    def give() -> None:
        with suppress(NotPausedError, FlowPauseTimeout, HTTPError):
            context.run(resume_flow_run, run_id, run_input=answer.model_dump())

    timer = Timer(seconds, give)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def carry_out(candidate: Candidate, answer: Approval) -> Outcome | State[Any]:
    """Promote or reject the candidate, and show the decision; a rejection ends the run as Rejected."""
    approver, reason = answer.approver.strip(), answer.reason.strip()
    if answer.decision == "approve":
        outcome = make_champion(candidate, reason, approver)
        show_decision(outcome, candidate)
        return outcome
    outcome = record_rejection(candidate, reason, approver)
    show_decision(outcome, candidate)
    return Completed(name="Rejected", message=outcome.sentence, data=outcome)
