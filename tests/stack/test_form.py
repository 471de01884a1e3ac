"""A run that a person starts with Prefect's form: what is asked, what is refused, and what is to see afterwards."""

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.stack.browser import HEIGHT, PICTURES, field, fill_as_json, picture
from tests.stack.machine import Machine, wait_for
from tests.stack.reviews import FINISHED_WITHIN, now, runs_of, settings

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.stack

# Long enough for its progress to be shown, and with checkpoints that take no time.
TRAINING = {"steps": 800, "learning_rate": 1e-4, "stop_chosen_drop": 0, "checkpoint_every": 100, "log_every": 20}

REFUSED_WITHIN = 5.0  # seconds
FAULTS = {
    "seed": "seed = -1: input should be greater than or equal to 0",
    "dpo": "dpo.beta = 99: input should be less than or equal to 10",
    "prompts": "prompts.count = 40 can never reach validation.min_pairs = 64",
    "base": "base.model /nowhere/model: no such folder",
    "evaluation": "evaluation.judge = grammar knows the built-in grammar alone, and data.path = reviews.csv is not it",
}
"""What is wrong in a form that starts from the quickstart, and at which field or closed group it stands."""

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


def opened(form: "Page", group: str) -> "Locator":
    """A group of fields, once it is opened to be changed."""
    found = field(form, group)
    found.get_by_text("Change", exact=True).first.click()
    return found


def test_a_form_is_short_and_says_of_every_field_what_it_is(form: "Page") -> None:
    """Thirteen entries, of which a person opens what is to be different."""
    height = form.evaluate("Math.max(...Array.from(document.querySelectorAll('*'), each => each.scrollHeight))")
    assert height < 3 * HEIGHT, height
    assert "a preset, or a registered version" in field(form, "start_from").inner_text()
    assert "Seed of every random draw" in field(form, "seed").inner_text()
    assert "Direct preference optimisation of the policy" in field(form, "dpo").inner_text()
    picture(form, "prefect-form")
    dpo = opened(form, "dpo")
    assert "Strength of the pull towards the reference" in field(dpo, "beta").inner_text()
    assert "over 0, at most 10; default 0.5" in field(dpo, "beta").inner_text()
    assert field(dpo, "beta").locator("input").input_value() == ""
    assert "sigmoid, hinge, ipo, robust (noisy labels), or distill" in field(dpo, "loss").inner_text()
    assert "in nats per token, at most" in field(opened(form, "gates"), "max_kl_per_token").inner_text()


def test_a_form_with_five_faults_names_five_at_their_fields_and_nothing_runs(
    stack: Machine, form: "Page", figures: Any
) -> None:
    """Out of bounds, out of reach, and not there; one in a field of a group that nobody opened."""
    began = now()
    field(form, "seed").locator("input").fill("-1")
    field(opened(form, "dpo"), "beta").locator("input").fill("99")
    field(opened(form, "prompts"), "count").locator("input").fill("40")
    field(opened(form, "base"), "model").locator("textarea").fill("/nowhere/model")
    field(opened(form, "data"), "path").locator("textarea").fill("reviews.csv")
    form.get_by_role("button", name="Submit").click()
    pressed = time.monotonic()
    form.get_by_text("5 faults, nothing was started").first.wait_for()
    seconds = time.monotonic() - pressed
    figures("a form with five faults is refused", seconds, "nothing")
    assert seconds < REFUSED_WITHIN

    message = form.locator(".p-toast__message").first.inner_text()
    for name, told in FAULTS.items():
        assert told in message
        assert told in field(form, name).inner_text()
    assert form.url.partition("?")[0].endswith("/run")
    picture(form, "prefect-refused", after=0.5)
    assert runs_of(stack, "align", began) == []


def test_where_nothing_checks_the_form_the_run_refuses_itself_before_anything_is_made(stack: Machine) -> None:
    """As behind a stock Prefect server; its state names every fault."""
    parameters = {"seed": 3, "prompts": {"count": 40}, "base": {"model": "/nowhere/model"}}
    (found,) = stack.api("deployments/filter", {"deployments": {"name": {"any_": ["align"]}}})
    where = f"deployments/{found['id']}/create_flow_run"
    run = stack.api(where, {"parameters": parameters, "enforce_parameter_schema": False})
    assert stack.end(run["id"], FINISHED_WITHIN) == "FAILED"
    message = stack.api(f"flow_runs/{run['id']}")["state"]["message"]
    assert "prompts.count = 40 can never reach validation.min_pairs = 64" in message
    assert "base.model /nowhere/model: no such folder" in message
    assert stack.mlflow_runs(run["id"]) == []


def test_a_run_is_filled_in_started_and_looked_at(stack: Machine, form: "Page") -> None:
    began = now()
    fill_as_json(form, json.dumps(settings(dpo={} if PICTURES else TRAINING), indent=2))
    field(form, "beta").locator("input").fill("0.45")
    form.get_by_role("button", name="Submit").click()
    form.get_by_role("button", name="View run").last.click()
    form.wait_for_url("**/flow-run/**")

    (run,) = runs_of(stack, "align", began)
    assert run["parameters"]["dpo"]["beta"] == 0.45
    wait_for(lambda: "at work" in stack.artifact(run["id"], "run").get("data", ""), FINISHED_WITHIN, "a stage at work")
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
