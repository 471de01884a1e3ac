"""A promotion in Prefect's UI: it waits for a person, shows what there is to know, and does what the person says."""

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.stack.browser import Clicks, field, picture
from tests.stack.machine import Machine, wait_for
from tests.stack.reviews import FINISHED_WITHIN, NAME, Reviews, now

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.stack

FIGURES = ("reward gain: ", "prompts won: ", "perplexity, ratio to the base's: ", "KL from the base", "length, change")


@pytest.fixture
def candidate(reviews: Reviews) -> str:
    return reviews.other()


@pytest.fixture
def paused(stack: Machine, candidate: str) -> str:
    """The run of a promotion that waits for an answer."""
    run = stack.run("promote", {"model_name": NAME, "version": int(candidate)})
    wait_for(lambda: stack.kind(run) == "PAUSED", FINISHED_WITHIN, "the pause")
    return run


def question(page: "Page", stack: Machine, run: str, clicks: Clicks) -> "Locator":
    """What a person sees who clicks Resume."""
    page.goto(f"{stack.prefect}/runs/flow-run/{run}")
    clicks.click(page.get_by_role("button", name="Resume"))
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Submit").wait_for()
    name_field(dialog).wait_for()
    return dialog


def name_field(dialog: "Locator") -> "Locator":
    """Where the name is asked for; it is the first field, and the one that is not optional."""
    return dialog.locator("textarea").first


def approve(dialog: "Locator", name: str, clicks: Clicks) -> None:
    """Say who it is, and approve."""
    clicks.click(name_field(dialog))
    name_field(dialog).press_sequentially(name)
    clicks.click(field(dialog, "Approve").get_by_role("switch"))


def submit(dialog: "Locator", clicks: Clicks) -> None:
    """Press Submit; again where the server's SQLite was locked, which the page says."""
    from playwright.sync_api import TimeoutError as StillThere

    for _ in range(6):
        clicks.click(dialog.get_by_role("button", name="Submit"))
        with suppress(StillThere):
            dialog.wait_for(state="hidden", timeout=10_000)
            return
    raise AssertionError("the answer was not taken")


def test_an_approval_makes_the_version_champion_and_starts_its_smoke_test(
    stack: Machine, reviews: Reviews, candidate: str, paused: str, page: "Page", figures: Any
) -> None:
    before, began = reviews.aliases(), now()
    clicks = Clicks(page)
    dialog = question(page, stack, paused, clicks)
    asked = dialog.locator(".markdown-renderer").first
    told = asked.inner_text()
    assert f"{NAME} version {candidate} passed its" in told
    assert "Answer by" in told
    for figure in FIGURES:
        assert figure in told
    assert asked.evaluate("box => box.scrollHeight <= box.clientHeight + 1"), "it is seen without scrolling"

    approve(dialog, "Ada Lovelace", clicks)
    picture(page, "prefect-approval")
    submit(dialog, clicks)
    decided = clicks.seconds

    seconds = wait_for(lambda: reviews.aliases().get("champion") == candidate, 60, "the champion")
    assert stack.end(paused) == "COMPLETED"
    assert reviews.aliases().get("previous") == before.get("champion")
    tags = reviews.tags(candidate)
    assert tags["promotion.decision"] == "promoted"
    assert tags["promotion.approver"] == "Ada Lovelace"
    reviews.smoke_tested(began)
    assert clicks.count <= 4
    figures("a waiting approval, to the decision in the dialog", decided, f"{clicks.count} clicks")
    figures("approved in Prefect's UI", seconds, "until the aliases had moved")


def test_everything_there_is_to_know_is_on_the_run_s_page_while_it_waits(
    stack: Machine, reviews: Reviews, candidate: str, paused: str, page: "Page"
) -> None:
    page.goto(f"{stack.prefect}/runs/flow-run/{paused}")
    page.locator("li.p-tab", has_text="Artifacts").click()
    page.get_by_text(f"{NAME} version {candidate} waits for an approval").first.wait_for()
    dialog = question(page, stack, paused, Clicks(page))
    card = dialog.get_by_role("link", name="Gates, samples, all figures").get_attribute("href")
    assert card is not None
    assert card.startswith(stack.prefect)

    page.goto(card)
    page.get_by_role("heading", name=f"{NAME} version {candidate} as champion?").wait_for()
    shown = page.locator("body").inner_text()
    for heading in ("Gates", "Result", "Samples: best", "Samples: worst", "Samples: most changed"):
        assert heading in shown
    for title in ("The full report", "The run in MLflow", "The version in MLflow"):
        link = page.get_by_role("link", name=title).get_attribute("href")
        assert link is not None
        assert link.startswith(stack.mlflow)
    stack.set_state(paused, "CANCELLING", "Cancelling")
    stack.end(paused)


def test_an_answer_without_a_name_is_refused_in_the_dialog(
    stack: Machine, reviews: Reviews, candidate: str, paused: str, page: "Page"
) -> None:
    clicks = Clicks(page)
    dialog = question(page, stack, paused, clicks)
    for name in ("", "  "):
        name_field(dialog).fill(name)
        dialog.get_by_role("button", name="Submit").click()
        page.get_by_text(re.compile("is a required property|does not match|should have at least")).first.wait_for()
        page.wait_for_timeout(2_000)
        assert dialog.is_visible()
        assert stack.kind(paused) == "PAUSED"
    before = reviews.aliases()
    name_field(dialog).fill("Ada Lovelace")
    submit(dialog, clicks)

    assert stack.end(paused) == "COMPLETED"
    assert stack.api(f"flow_runs/{paused}")["state_name"] == "Rejected"
    assert reviews.aliases() == before
    tags = reviews.tags(candidate)
    assert (tags["promotion.decision"], tags["promotion.approver"]) == ("rejected", "Ada Lovelace")


def test_a_question_outlives_a_restart_of_prefects_server(
    stack: Machine, reviews: Reviews, candidate: str, paused: str, page: "Page"
) -> None:
    server, began = stack.service("prefect"), now()
    stack.kill("prefect")
    assert stack.kind(paused) == "PAUSED"
    again = stack.service("prefect")
    assert again
    assert set(again).isdisjoint(server)
    clicks = Clicks(page)
    dialog = question(page, stack, paused, clicks)
    approve(dialog, "Ada Lovelace", clicks)
    submit(dialog, clicks)

    assert stack.end(paused) == "COMPLETED"
    assert reviews.aliases()["champion"] == candidate
    reviews.smoke_tested(began)
