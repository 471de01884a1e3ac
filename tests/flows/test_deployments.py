"""What people trigger: the server starts, prefect.yaml parses into deployments, and the form carries the bounds."""

from pathlib import Path
from typing import Any

import yaml

from alignment.config import AlignConfig

PROJECT = Path(__file__).parents[2]


def test_the_prefect_server_application_imports() -> None:
    """prefect 3.8.8 allows a fastapi with which its server does not start; `pip check` does not see it."""
    from prefect.server.api.server import create_app

    assert create_app().routes


def test_prefect_yaml_names_flows_that_exist_and_fields_that_prefect_knows() -> None:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.flows import load_flow_from_entrypoint

    found: dict[str, Any] = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))
    for deployment in found["deployments"]:
        path, _, name = deployment["entrypoint"].partition(":")
        assert load_flow_from_entrypoint(f"{PROJECT / path}:{name}").name == deployment["name"]
        assert ConcurrencyLimitConfig.model_validate(deployment["concurrency_limit"]).limit == 1


def test_the_form_has_a_section_a_group_with_descriptions_and_bounds() -> None:
    from flows.align import align

    schema = align.parameters
    assert list(schema.properties) == list(AlignConfig.model_fields)
    beta = schema.definitions["DPOConfig"]["properties"]["beta"]
    assert beta["description"] == "Strength of the pull towards the reference"
    assert (beta["exclusiveMinimum"], beta["maximum"], beta["default"]) == (0, 10, 0.5)
    assert schema.definitions["DPOConfig"]["properties"]["loss"]["enum"] == ["sigmoid", "hinge", "ipo", "robust"]
