"""The ways that people take most often, with their clicks and seconds counted, and the pictures of the tour."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.stack.pages import first_steps_page
from tasks.registry import pages
from tasks.reports import PAGE
from tests.stack.browser import HEIGHT, PICTURES, WIDTH, Clicks, field, picture
from tests.stack.machine import Machine, wait_for
from tests.stack.reviews import FINISHED_WITHIN, NAME, Reviews, settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.stack

Figures = Callable[[str, float, str], None]
TRAINING = {"steps": 800, "learning_rate": 1e-4, "stop_chosen_drop": 0, "checkpoint_every": 100, "log_every": 20}


def flow_run(stack: Machine, reviews: Reviews, run: str) -> dict[str, Any]:
    """The flow run in Prefect of an MLflow run."""
    tags = reviews.client.get_run(run).data.tags
    found: dict[str, Any] = stack.api(f"flow_runs/{tags['prefect.flow_run_id']}")
    return found


def newest(reviews: Reviews) -> Any:
    """The run of the model that was started last."""
    experiment = reviews.client.get_experiment_by_name(NAME)
    return reviews.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]


def test_the_first_page_leads_to_the_form_and_to_mlflow(stack: Machine, page: "Page", figures: Figures) -> None:
    if stack.passwords is not None:
        pytest.skip("`plumbline up` prints its address")
    clicks = Clicks(page)
    page.goto(first_steps_page(stack.prefect))
    page.get_by_role("heading", name="First steps").wait_for()
    picture(page, "prefect-first-steps")
    assert page.get_by_role("link", name="MLflow", exact=True).get_attribute("href") == pages.experiments_page(
        stack.mlflow
    )
    with page.expect_popup() as opened:
        clicks.click(page.get_by_role("link", name="the form of align"))
    field(opened.value, "start_from").wait_for()
    assert clicks.count <= 1
    figures("from the first page to the form", clicks.seconds, f"clicks: {clicks.count}")


def test_from_the_printed_address_to_the_reward_curve_of_the_newest_run(
    stack: Machine, reviews: Reviews, page: "Page", figures: Figures
) -> None:
    run, clicks = newest(reviews).info, Clicks(page)
    if stack.passwords is None:
        page.goto(pages.experiments_page(stack.mlflow))
        clicks.click(page.get_by_role("link", name=NAME, exact=True))
        for column in ("verdict", "Result/reward_gain", "Result/win_rate"):
            page.get_by_role("columnheader", name=column).first.wait_for()
    else:  # MLflow's own server forgets its side for training runs with a click in its list of experiments
        page.goto(pages.experiment_page(run.experiment_id, stack.mlflow))
    clicks.click(page.locator(f"a[href*='/runs/{run.run_id}']").first)
    clicks.click(page.get_by_role("tab", name="Model metrics"))
    curve = page.get_by_text("margin", exact=True).locator("visible=true").first
    page.get_by_placeholder("Search metric charts").wait_for()
    page.mouse.move(WIDTH / 2, HEIGHT / 2)
    for _ in range(40):  # MLflow draws what is scrolled to
        if curve.count():
            break
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(300)
    curve.wait_for()
    assert clicks.count <= 3
    figures("from MLflow's printed address to the reward curve", clicks.seconds, f"clicks: {clicks.count}")


def test_from_a_refused_run_to_the_reason(stack: Machine, reviews: Reviews, page: "Page", figures: Figures) -> None:
    run = flow_run(stack, reviews, reviews.refused)
    reason = run["state"]["message"]
    assert "gain" in reason, "the gate that refused it"
    clicks = Clicks(page)
    page.goto(f"{stack.prefect}/runs")
    clicks.click(page.locator(f"a[href*='flow-run/{run['id']}']").first)
    page.get_by_text(reason[:40]).locator("visible=true").first.wait_for()
    assert clicks.count <= 2
    figures("from the runs to the reason of a refused one, Prefect", clicks.seconds, f"clicks: {clicks.count}")

    clicks = Clicks(page)
    where = reviews.client.get_run(reviews.refused).info
    page.goto(pages.experiment_page(where.experiment_id, stack.mlflow))
    clicks.click(page.locator(f"a[href*='/runs/{where.run_id}']").first)
    page.get_by_text(reason[:40]).locator("visible=true").first.wait_for()
    assert clicks.count <= 2
    figures("from the runs to the reason of a refused one, MLflow", clicks.seconds, f"clicks: {clicks.count}")


def test_a_run_at_work_says_where_it_is(stack: Machine, reviews: Reviews, page: "Page") -> None:
    run = stack.run("align", settings(dpo={"beta": 0.47} | ({} if PICTURES else TRAINING)))
    of_run = {"logs": {"flow_run_id": {"any_": [run]}}}

    def trains() -> bool:
        return any("train policy" in line["message"] for line in stack.api("logs/filter", of_run))

    wait_for(trains, FINISHED_WITHIN, "the training of the policy")
    page.goto(f"{stack.prefect}/runs/flow-run/{run}")
    page.get_by_text("train policy").locator("visible=true").first.wait_for()
    picture(page, "prefect-progress")
    assert stack.end(run, FINISHED_WITHIN) == "COMPLETED"


def test_the_report_can_be_read_without_a_network(reviews: Reviews, page: "Page", tmp_path: Path) -> None:
    run = reviews.client.get_run(reviews.refused if not PICTURES else newest(reviews).info.run_id)
    file = reviews.client.download_artifacts(run.info.run_id, PAGE, str(tmp_path))
    asked: list[str] = []
    page.goto("about:blank")  # where the sign-in led to asks its own server
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(Path(file).read_text(encoding="utf-8"))
    page.get_by_role("heading").first.wait_for()
    picture(page, "report")
    assert [url for url in asked if not url.startswith(("data:", "about:"))] == []


def test_the_champion_can_be_seen_in_the_registry(stack: Machine, reviews: Reviews, page: "Page") -> None:
    reviews.make_champion(reviews.passed[0])
    page.goto(pages.model_page(NAME, stack.mlflow))
    page.get_by_text("champion").locator("visible=true").first.wait_for()
    picture(page, "mlflow-champion")
