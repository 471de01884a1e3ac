"""What a newcomer reads names deployments and values that exist, and links to this stack's pages."""

import re

import pytest

from flows.stack.first_steps import first_steps
from flows.stack.pages import first_steps_page
from tests.flows.test_deployments import DEPLOYMENTS

IDS = {name: f"id-of-{name}" for name in DEPLOYMENTS}


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
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


def test_its_page_is_below_prefect_s_address() -> None:
    assert first_steps_page("http://127.0.0.1:4200") == "http://127.0.0.1:4200/artifacts/key/first-steps"
