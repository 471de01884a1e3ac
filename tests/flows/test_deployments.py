"""What people trigger, and runs: prefect.yaml parses into deployments, each with what it starts from."""

from pathlib import Path
from typing import Any

import pytest

from flows.settings import CONFIGS
from flows.stack.bootstrap import SHARDS, TRAINING
from flows.stack.deployments import read_deployments
from flows.stack.services import POOL
from tasks.events import CHAMPION_CHANGED, DATA_ARRIVED
from tasks.pools import ON_A_GPU, ON_PROCESSORS
from tasks.runners import TAG

PROJECT = Path(__file__).parents[2]
ALL: dict[str, dict[str, Any]] = {item["name"]: item for item in read_deployments(PROJECT)}
OF_SHARDS = {"shards", "shards-cpu"}
DEPLOYMENTS = {name: item for name, item in ALL.items() if name not in OF_SHARDS}


def test_every_flow_that_people_start_is_deployed() -> None:
    assert set(DEPLOYMENTS) == {"align", "retrain", "sweep", "frontier", "promote", "rollback", "smoke"}


def test_what_runs_start_is_deployed_in_a_queue_of_its_own_and_concerns_nobody() -> None:
    """Behind the runs that wait for them, shards would wait forever."""
    assert set(ALL) - set(DEPLOYMENTS) == OF_SHARDS == {name.partition("/")[2] for name in (ON_A_GPU, ON_PROCESSORS)}
    for name in OF_SHARDS:
        assert ALL[name]["work_pool"]["work_queue_name"] == SHARDS != TRAINING
        assert ALL[name]["entrypoint"] == "flows/shards.py:shards"
        assert ALL[name]["tags"] == [TAG]
        assert "concurrency_limit" not in ALL[name]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_names_a_flow_that_exists_says_what_it_is_for_and_fits_the_flow(name: str) -> None:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.flows import load_flow_from_entrypoint

    deployment = DEPLOYMENTS[name]
    path, _, function = deployment["entrypoint"].partition(":")
    flow: Any = load_flow_from_entrypoint(f"{PROJECT / path}:{function}")
    assert flow.name == name
    assert flow.validate_parameters(deployment.get("parameters", {})) is not None
    assert set(deployment.get("parameters", {})) <= set(flow.parameters.properties)
    queue = {"work_queue_name": TRAINING} if "alignment" in deployment["tags"] else {}
    pool = {name: value for name, value in deployment["work_pool"].items() if name != "job_variables"}
    assert pool == {"name": POOL} | queue, "a promotion never waits behind a training"
    assert len(deployment["description"].splitlines()) == 1
    assert deployment["tags"]
    if "concurrency_limit" in deployment:
        limit = ConcurrencyLimitConfig.model_validate(deployment["concurrency_limit"])
        assert limit.collision_strategy.value == "ENQUEUE", "a run that meets the limit waits, and is not lost"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("align", "quickstart"),
        ("sweep", "quickstart"),
        ("frontier", "quickstart"),
        ("retrain", "quickstart_retrain"),
    ],
)
def test_pressing_run_trains_the_embedded_default(name: str, file: str) -> None:
    assert DEPLOYMENTS[name]["parameters"] == {"start_from": file}


def test_a_file_of_one_s_own_gives_its_values_and_a_shipped_one_its_name(tmp_path: Path) -> None:
    """`parameters` are laid over either."""
    head = "deployments:\n  - name: mine\n    parameters: {seed: 3}\n    config: "
    (tmp_path / "mine.yaml").write_text("dpo: {beta: 0.25}", encoding="utf-8")
    found = {}
    for config in ("mine.yaml", CONFIGS / "tiny.yaml"):
        (tmp_path / "prefect.yaml").write_text(f"{head}{config}", encoding="utf-8")
        found[str(config)] = read_deployments(tmp_path)[0]["parameters"]
    assert list(found.values()) == [{"dpo": {"beta": 0.25}, "seed": 3}, {"start_from": "tiny", "seed": 3}]


def test_one_retraining_at_a_time_every_week_once_that_is_turned_on_and_when_data_arrived() -> None:
    retrain = DEPLOYMENTS["retrain"]
    assert retrain["concurrency_limit"]["limit"] == 1
    assert retrain["schedules"] == [{"slug": "weekly", "cron": "0 3 * * 1", "timezone": "UTC", "active": False}]
    assert [trigger["expect"] for trigger in retrain["triggers"]] == [[DATA_ARRIVED]]


def test_the_smoke_test_starts_when_the_champion_changes_and_learns_which() -> None:
    (trigger,) = DEPLOYMENTS["smoke"]["triggers"]
    assert trigger["expect"] == [CHAMPION_CHANGED]
    assert trigger["parameters"] == {"model_name": "{{ event.payload.model_name }}"}
