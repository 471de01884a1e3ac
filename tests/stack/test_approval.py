"""A promotion in Prefect's UI: it waits for a person, shows what there is to know, and does what the person says."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.stack.browser import choose, field, picture
from tests.stack.machine import Machine, wait_for
from tests.stack.reviews import FINISHED_WITHIN, NAME, Reviews, now

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.stack


@pytest.fixture
def candidate(reviews: Reviews) -> str:
    return reviews.other()


@pytest.fixture
def paused(stack: Machine, candidate: str) -> str:
    """The run of a promotion that waits for an answer."""
    run = stack.run("promote", {"model_name": NAME, "version": int(candidate)})
    wait_for(lambda: stack.kind(run) == "PAUSED", FINISHED_WITHIN, "the pause")
    return run


def question(page: "Page", stack: Machine, run: str) -> "Locator":
    """What a person sees who clicks Resume."""
    page.goto(f"{stack.prefect}/runs/flow-run/{run}")
    page.get_by_role("button", name="Resume").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Submit").wait_for()
    field(dialog, "Decision").wait_for()
    return dialog


def submit(dialog: "Locator") -> None:
    """Press Submit; again where the server's SQLite was locked, which the page says."""
    from playwright.sync_api import TimeoutError as StillThere

    for _ in range(6):
        dialog.get_by_role("button", name="Submit").click()
        with suppress(StillThere):
            dialog.wait_for(state="hidden", timeout=10_000)
            return
    raise AssertionError("the answer was not taken")


def test_an_approval_makes_the_version_champion_and_starts_its_smoke_test(
    stack: Machine, reviews: Reviews, candidate: str, paused: str, page: "Page", figures: Any
) -> None:
    before, began = reviews.aliases(), now()
    dialog = question(page, stack, paused)
    card = dialog.inner_text()
    for heading in ("as champion?", "Result", "Gates", "Samples: best", "Samples: worst", "Samples: most changed"):
        assert heading in card
    link = dialog.get_by_role("link", name="The run in MLflow").get_attribute("href")
    assert link is not None
    assert link.startswith(stack.mlflow)

    choose(page, field(dialog, "Decision"), "approve")
    field(dialog, "Approver").locator("textarea").fill("Ada Lovelace")
    field(dialog, "Reason").locator("textarea").fill("reads well, and the gain is sure")
    picture(page, "prefect-approval")
    submit(dialog)

    seconds = wait_for(lambda: reviews.aliases().get("champion") == candidate, 60, "the champion")
    assert stack.end(paused) == "COMPLETED"
    assert reviews.aliases().get("previous") == before.get("champion")
    tags = reviews.tags(candidate)
    assert tags["promotion.decision"] == "promoted"
    assert tags["promotion.approver"] == "Ada Lovelace"
    assert tags["promotion.reason"] == "reads well, and the gain is sure"
    reviews.smoke_tested(began)
    figures("approved in Prefect's UI", seconds, "until the aliases had moved")


def test_a_question_outlives_a_restart_of_prefects_server(
    stack: Machine, reviews: Reviews, candidate: str, paused: str, page: "Page"
) -> None:
    server, began = stack.service("prefect"), now()
    stack.kill("prefect")
    assert stack.kind(paused) == "PAUSED"
    again = stack.service("prefect")
    assert again
    assert set(again).isdisjoint(server)
    dialog = question(page, stack, paused)
    choose(page, field(dialog, "Decision"), "approve")
    field(dialog, "Approver").locator("textarea").fill("Ada Lovelace")
    submit(dialog)

    assert stack.end(paused) == "COMPLETED"
    assert reviews.aliases()["champion"] == candidate
    reviews.smoke_tested(began)


def test_submitting_without_a_decision_rejects(
    stack: Machine, reviews: Reviews, candidate: str, paused: str, page: "Page"
) -> None:
    before = reviews.aliases()
    submit(question(page, stack, paused))

    assert stack.end(paused) == "COMPLETED"
    assert stack.api(f"flow_runs/{paused}")["state_name"] == "Rejected"
    assert reviews.aliases() == before
    assert reviews.tags(candidate)["promotion.decision"] == "rejected"
