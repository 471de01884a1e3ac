"""The alias `champion` moved by hand in MLflow's page: a version that passed stays, any other one loses it again."""

from typing import TYPE_CHECKING, Any

import pytest

from tests.stack.browser import move_alias, picture
from tests.stack.machine import Machine, wait_for
from tests.stack.reviews import NAME, Reviews, events, now

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.stack

WITHIN = 20.0  # seconds


@pytest.fixture
def champion(reviews: Reviews) -> str:
    """A version that is the champion, on record too."""
    version = reviews.passed[0]
    reviews.make_champion(version)
    return version


@pytest.fixture
def ungated(reviews: Reviews, monkeypatch: pytest.MonkeyPatch) -> str:
    """A version that somebody registered by hand, of a policy that the gates refused."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", reviews.stack.mlflow)
    return reviews.register_refused()


def open_version(page: "Page", stack: Machine, version: str) -> None:
    page.goto(f"{stack.mlflow}/#/models/{NAME}/versions/{version}")


def test_a_version_that_passed_becomes_champion_and_is_smoke_tested(
    stack: Machine, reviews: Reviews, champion: str, page: "Page", figures: Any
) -> None:
    version = reviews.other()
    open_version(page, stack, version)
    began = now()
    move_alias(page, "champion")

    seconds = wait_for(reviews.settled, WITHIN, "the receiver's answer")
    assert reviews.aliases()["champion"] == version
    assert reviews.aliases()["previous"] == champion
    tags = reviews.tags(version)
    assert (tags["promotion.decision"], tags["promotion.approver"]) == ("promoted", "by hand in MLflow")
    page.reload()
    page.locator("strong", has_text="Promoted").wait_for()  # on top of its description
    picture(page, "mlflow-promoted")
    reviews.smoke_tested(began)
    figures("promoted in MLflow's page", seconds, "until the receiver had tagged it")


def test_a_version_that_did_not_pass_loses_the_alias_again(
    stack: Machine, reviews: Reviews, champion: str, ungated: str, page: "Page", figures: Any
) -> None:
    open_version(page, stack, ungated)
    began = now()
    move_alias(page, "champion")

    seconds = wait_for(lambda: "promotion.decision" in reviews.tags(ungated), WITHIN, "the receiver's answer")
    seconds += wait_for(lambda: reviews.aliases()["champion"] == champion, WITHIN, "the old champion")
    tags = reviews.tags(ungated)
    assert tags["promotion.decision"] == "reverted"
    assert "never passed the gates" in tags["promotion.reason"]
    assert tags["promotion.approver"] == "by hand in MLflow"
    wait_for(lambda: len(events(stack, "plumbline.promotion.reverted", began)) == 1, WITHIN, "the event")
    (event,) = events(stack, "plumbline.promotion.reverted", began)
    assert event["payload"]["model_name"] == NAME
    assert (event["payload"]["version"], event["payload"]["champion"]) == (ungated, champion)
    page.reload()
    page.get_by_text("it never passed the gates").first.wait_for()
    picture(page, "mlflow-reverted")
    figures("ungated, in MLflow's page", seconds, "until the alias was back")
