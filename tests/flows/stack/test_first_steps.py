"""What a newcomer reads names deployments and values that exist, and links to this stack's pages."""

import re

import pytest

from flows.settings import load_config
from flows.stack.first_steps import first_steps
from flows.stack.pages import first_steps_page
from flows.start_from import presets
from tests.flows.test_deployments import DEPLOYMENTS

IDS = {name: f"id-of-{name}" for name in DEPLOYMENTS}


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setattr("tasks.registry.connection._place", None)  # as another test may have left it
    return first_steps(IDS)


def test_it_leads_to_the_forms_and_to_the_side_of_mlflow_that_has_the_runs(text: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links == [
        "/deployments/deployment/id-of-align/run",
        "http://127.0.0.1:5000/#/experiments?workflowType=machine_learning",
        "/deployments/deployment/id-of-promote/run",
        "http://127.0.0.1:5000/#/models?workflowType=machine_learning",
        "/deployments/deployment/id-of-retrain",
    ]


def test_a_deployment_that_somebody_deleted_is_no_broken_link() -> None:
    assert "id-of" not in first_steps({})


def test_each_paragraph_is_one_line_because_prefect_s_page_breaks_where_a_line_ends(text: str) -> None:
    heading, *steps, status = text.split("\n\n")
    assert heading == "# First steps"
    assert [step[:8] for step in steps] == [f"**{number}.** *" for number in range(1, 7)]
    assert status.startswith("A run that fails")
    assert not any("\n" in paragraph for paragraph in (*steps, status))


def test_its_page_is_that_of_the_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, str]] = []
    monkeypatch.setattr("flows.stack.pages.call", lambda *_: made)
    assert first_steps_page("http://127.0.0.1:4200") == "http://127.0.0.1:4200/artifacts"
    made.append({"id": "a1"})
    assert first_steps_page("http://127.0.0.1:4200") == "http://127.0.0.1:4200/artifacts/artifact/a1"


def test_a_preset_that_it_names_is_offered_by_the_form(text: str) -> None:
    assert "**tiny**" in text
    assert "tiny" in presets()


def test_the_model_that_the_first_run_registers_is_the_one_to_approve(text: str) -> None:
    (approve,) = (step for step in text.split("\n\n") if "Approve it" in step)
    assert "**plumbline-tiny**" in approve
    assert load_config("tiny.yaml").registry.model_name == "plumbline-tiny"
