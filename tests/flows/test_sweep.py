"""A sweep through the real flow: children under one parent, shared stages computed once, the best that passes wins."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig, GridConfig, build_config, merge
from alignment.errors import TrainingError, ValidationError
from alignment.training import dpo
from flows.sweep import SweepResult, sweep
from tasks import running
from tasks.progress import Event
from tests.flows.small import OPEN_GATES, SMALL

NAME = "swept"
GRID = GridConfig(losses=("hinge",), betas=(0.5,), learning_rates=(1e-4, 3e-3, 1.0))
DIVERGES = 1.0


def config(**overrides: Any) -> AlignConfig:
    values = merge(SMALL, {"gates": OPEN_GATES, "registry": {"model_name": NAME, "experiment": NAME}})
    return build_config(merge(values, overrides))


def start(wanted: AlignConfig, grid: GridConfig = GRID) -> SweepResult:
    result: SweepResult = sweep(**{name: getattr(wanted, name) for name in AlignConfig.model_fields}, grid=grid)
    return result


@dataclass(frozen=True)
class Story:
    """A sweep of two points that pass and one that diverges, then the same with gates that refuse all."""

    result: SweepResult
    events: list[Event]
    table: Any
    refused: SweepResult


@pytest.fixture(scope="module")
def story(shared_home: Path, prefect_server: None) -> Story:
    from prefect.client.orchestration import get_client

    train = dpo.train

    def diverging(model: Any, pairs: Any, settings: Any, **options: Any) -> Any:
        if settings.learning_rate == DIVERGES:
            raise TrainingError("training diverged: loss nan at step 5; lower the learning rate")
        return train(model, pairs, settings, **options)

    events: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(shared_home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(dpo, "train", diverging)
        running.LISTENERS.append(events.append)
        try:
            result = start(config())
        finally:
            running.LISTENERS.remove(events.append)
        with get_client(sync_client=True) as client:
            (table,) = [item for item in client.read_latest_artifacts() if item.key == "sweep"]
        impossible = {"min_win_rate": 1.0, "min_gain": 100}
        refused = start(config(gates=impossible, registry={"model_name": "none", "experiment": "none"}))
    return Story(result, events, table, refused)


@pytest.fixture
def client(at_home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{at_home / 'mlflow.db'}")


def children(client: Any, experiment: str, parent: str) -> list[Any]:
    where = client.get_experiment_by_name(experiment).experiment_id
    return list(client.search_runs([where], f"tags.`mlflow.parentRunId` = '{parent}'"))


def test_each_point_is_a_child_of_one_run_with_its_own_settings_and_end(story: Story, client: Any) -> None:
    found = children(client, NAME, story.result.run_id)
    ends = {float(run.data.params["dpo.learning_rate"]): run.info.status for run in found}
    assert ends == {1e-4: "FINISHED", 3e-3: "FINISHED", DIVERGES: "FAILED"}
    assert client.get_run(story.result.run_id).info.status == "FINISHED"
    for run in found:
        if run.info.status == "FINISHED":
            assert run.data.metrics["delta/win_rate"] >= 0
            assert run.data.tags["plumbline.verdict"] == "pass"


def test_what_the_points_share_is_computed_once(story: Story) -> None:
    computed = [event.stage for event in story.events if event.kind == "computed"]
    once = {"texts", "base", "reward", "prompts", "scores", "pairs", "validation", "reference", "before"}
    assert {stage: computed.count(stage) for stage in once} == dict.fromkeys(once, 1)
    assert {stage: computed.count(stage) for stage in ("policy", "after", "report")} == {
        "policy": 2,
        "after": 2,
        "report": 2,
    }


def test_the_surest_gain_of_those_that_passed_is_the_challenger(story: Story, client: Any) -> None:
    """Its version belongs to the point's own run, whose figures say that no other point's lower end is higher."""
    best = story.result.best
    assert best is not None
    version = client.get_model_version_by_alias(NAME, "challenger")
    assert version.run_id == best.run_id != story.result.run_id
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 1
    lows = {
        run.info.run_id: run.data.metrics["delta/reward_gain_low"]
        for run in children(client, NAME, story.result.run_id)
        if run.info.status == "FINISHED"
    }
    assert max(lows, key=lambda run_id: lows[run_id]) == best.run_id
    tags = client.get_run(story.result.run_id).data.tags
    assert tags["plumbline.verdict"] == "pass"
    assert tags["plumbline.reason"].startswith("2 of 3 points passed; the challenger is hinge, β 0.5, lr ")


def test_the_table_is_shown_in_prefect_and_kept_in_mlflow_with_the_plot(story: Story, client: Any) -> None:
    assert [row["verdict"] for row in story.result.points] == ["passed", "passed", "failed"]
    assert story.result.points[2]["why"].startswith("training diverged")
    assert json.loads(story.table.data) == story.result.points
    assert story.table.description == story.result.told, "with what became of the best, as it is shown after that"
    run_id = story.result.run_id
    kept = json.loads(Path(client.download_artifacts(run_id, "sweep.json")).read_text(encoding="utf-8"))
    assert kept == story.result.points
    plot = Path(client.download_artifacts(run_id, "plots/reward_against_kl.png")).read_bytes()
    assert plot.startswith(b"\x89PNG")


def test_where_all_are_refused_nothing_is_registered(story: Story, client: Any) -> None:
    assert story.refused.best is None
    assert [row["verdict"] for row in story.refused.points] == ["refused", "refused", "failed"]
    assert not client.search_registered_models("name = 'none'")
    run = client.get_run(story.refused.run_id)
    assert (run.info.status, run.data.tags["plumbline.verdict"]) == ("FINISHED", "fail")
    assert run.data.tags["plumbline.reason"] == "0 of 3 points passed"


def test_a_fault_that_all_points_share_ends_the_sweep(story: Story, client: Any) -> None:
    """Bad pairs are no finding about a learning rate, and no finished sweep."""
    wanted = config(validation={"min_pairs": 48}, registry={"experiment": "bad pairs"})
    with pytest.raises(ValidationError, match=r"validation\.min_pairs = 48"):
        start(wanted)
    where = client.get_experiment_by_name("bad pairs").experiment_id
    assert [run.info.status for run in client.search_runs([where])] == ["FAILED", "FAILED"]
