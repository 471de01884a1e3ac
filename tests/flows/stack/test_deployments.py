"""A deployment's parameters: those of a configuration file, those of prefect.yaml, or these laid over those."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.errors import ConfigError
from flows.stack.deployments import read_deployments

Read = Callable[..., dict[str, Any]]


@pytest.fixture
def parameters(tmp_path: Path) -> Read:
    """The parameters of a deployment with these fields, beside which own.yaml lies."""

    def read(**fields: Any) -> dict[str, Any]:
        own = "data: {path: mine.csv, rows: 500}\ndpo:\n  learning_rate: 1.0e-4\n"
        (tmp_path / "own.yaml").write_text(own, encoding="utf-8")
        content = {"pull": [], "deployments": [{"name": "retrain", **fields}]}
        (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        [deployment] = read_deployments(tmp_path)
        found: dict[str, Any] = deployment["parameters"]
        return found

    return read


def test_those_of_a_file_are_its_values_as_numbers_and_no_defaults(parameters: Read) -> None:
    found = parameters(config="own.yaml")
    assert found == {"data": {"path": "mine.csv", "rows": 500}, "dpo": {"learning_rate": 0.0001}}


def test_own_values_without_a_file_are_taken_as_they_are(parameters: Read) -> None:
    own = {"data": {"path": "mine.csv"}, "registry": {"model_name": "mine"}}
    assert parameters(parameters=own) == own
    assert parameters() == {}


def test_own_values_beside_a_file_are_laid_over_it_and_other_parameters_are_kept(parameters: Read) -> None:
    found = parameters(config="own.yaml", parameters={"data": {"rows": 9}, "seed": 3, "grid": {"betas": [0.1]}})
    assert found == {
        "seed": 3,
        "data": {"path": "mine.csv", "rows": 9},
        "dpo": {"learning_rate": 0.0001},
        "grid": {"betas": [0.1]},
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"config": "missing.yaml"}, r"deployment retrain: config .*missing\.yaml: No such file"),
        ({"config": "own.yaml", "parameters": {"dpo": {"beta": 99}}}, "deployment retrain: .*less than or equal to 10"),
        ({"config": "own.yaml", "parameters": "none"}, "not readable as deployments"),
    ],
    ids=["no-file", "out-of-bounds", "no-mapping"],
)
def test_what_cannot_be_read_is_refused_by_name(parameters: Read, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parameters(**fields)
