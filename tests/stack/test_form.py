"""A run that a person starts with Prefect's form: what is asked, what is refused, and what is to see afterwards."""

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.stack.browser import PICTURES, field, fill_as_json, picture
from tests.stack.machine import Machine
from tests.stack.reviews import FINISHED_WITHIN, now, runs_of, settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.stack

# Long enough for its progress to be shown, and with checkpoints that take no time.
TRAINING = {"steps": 800, "learning_rate": 1e-4, "stop_chosen_drop": 0, "checkpoint_every": 100, "log_every": 20}

SHOWN = {
    "run": ("train policy", "done"),
    "progress": ("100",),
    "validation": ("The whole set", "score gap"),
    "result": ("reward, mean", "Gates", "held-out prompts"),
}
"""The artifacts of a finished run, and what each of them says."""


@pytest.fixture
def form(stack: Machine, page: "Page") -> "Page":
    """The form of `align`, by the way that a person takes to it."""
    page.goto(f"{stack.prefect}/deployments")
    page.get_by_role("link", name="align", exact=True).first.click()
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    page.get_by_role("button", name="Submit").wait_for()
    return page


def test_every_group_and_field_is_there_with_its_description(form: "Page") -> None:
    assert "Seed of every random draw" in field(form, "seed").inner_text()
    dpo = field(form, "dpo")
    assert "Direct preference optimisation of the policy" in dpo.inner_text()
    assert "Strength of the pull towards the reference" in field(dpo, "Beta").inner_text()
    assert field(dpo, "Beta").locator("input").input_value() == "0.5"
    assert "sigmoid, hinge, ipo, or robust" in field(dpo, "Loss").inner_text()
    assert "in nats per token, at most" in field(field(form, "gates"), "Max Kl Per Token").inner_text()
    dpo.evaluate("group => group.scrollIntoView()")
    picture(form, "prefect-form")


def test_a_value_out_of_bounds_is_refused_and_nothing_runs(stack: Machine, form: "Page") -> None:
    began = now()
    field(form, "Beta").locator("input").fill("99")
    form.get_by_role("button", name="Submit").click()

    refusal = form.get_by_text("99 is greater than the maximum of 10").first
    refusal.wait_for()
    assert "'dpo.beta'" in refusal.inner_text()
    assert form.url.partition("?")[0].endswith("/run")
    picture(form, "prefect-refused", after=0.5)
    assert runs_of(stack, "align", began) == []


def test_a_run_is_filled_in_started_and_looked_at(stack: Machine, form: "Page") -> None:
    began = now()
    fill_as_json(form, json.dumps(settings(dpo={} if PICTURES else TRAINING), indent=2))
    field(form, "Beta").locator("input").fill("0.45")
    form.get_by_role("button", name="Submit").click()
    form.get_by_role("button", name="View run").last.click()
    form.wait_for_url("**/flow-run/**")

    (run,) = runs_of(stack, "align", began)
    assert run["parameters"]["dpo"]["beta"] == 0.45
    tab(form, "Artifacts")
    open_artifact(form, "run")
    form.get_by_text("at work").first.wait_for()
    form.get_by_role("link", name="curves, figures and artifacts").wait_for()
    assert stack.end(run["id"], FINISHED_WITHIN) == "COMPLETED"
    form.go_back()
    form.reload()
    form.get_by_text(re.compile(r": hinge, beta 0\.45, lr ")).first.wait_for()
    picture(form, "prefect-run", after=5)

    for key, texts in SHOWN.items():
        tab(form, "Artifacts")
        open_artifact(form, key)
        for text in texts:
            form.get_by_text(text).first.wait_for()
        if key == "result":
            picture(form, "prefect-result")
        form.go_back()

    show_in_mlflow(stack, form, run["id"])


def open_artifact(page: "Page", key: str) -> None:
    """Click on the card of one of the flow run's artifacts."""
    page.locator(".artifact-card", has=page.get_by_text(key, exact=True)).first.click()


def tab(page: "Page", name: str) -> None:
    page.locator("li.p-tab", has_text=name).click()


def show_in_mlflow(stack: Machine, page: "Page", run: str) -> None:
    """The curves and the sample texts of the run."""
    (found,) = stack.mlflow_runs(run)
    where = f"{stack.mlflow}/#/experiments/{found.info.experiment_id}/runs/{found.info.run_id}"
    page.goto(f"{where}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("rewards")
    page.get_by_text("margin").first.wait_for()
    picture(page, "mlflow-run", after=5)
    page.goto(f"{where}/artifacts/samples.json")
    page.get_by_text("aligned_reward").first.wait_for()
