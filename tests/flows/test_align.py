"""The whole flow on a shrunken default: what it leaves in Prefect, in MLflow and in the store, however it ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config, merge
from alignment.errors import ConfigError, ValidationError
from flows.align import AFTER, AlignResult, align
from tasks import running
from tasks.progress import Event
from tests.flows.small import OPEN_GATES, SMALL

pytestmark = pytest.mark.usefixtures("at_home")


def config(**overrides: Any) -> AlignConfig:
    return build_config(merge(SMALL, overrides))


def run(wanted: AlignConfig) -> AlignResult:
    result: AlignResult = align(**{name: getattr(wanted, name) for name in AlignConfig.model_fields})
    return result


@pytest.fixture
def mlflow_client(at_home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{at_home / 'mlflow.db'}")


def artifacts(client: Any, run_id: str, folder: str = "") -> set[str]:
    return {item.path for item in client.list_artifacts(run_id, folder or None)}


def test_a_model_that_passes_is_registered_as_challenger_with_its_record(mlflow_client: Any) -> None:
    result = run(config(gates=OPEN_GATES))

    assert result.judgement.verdict == "pass"
    assert result.model is not None
    assert result.model["aliases"] == ["challenger"]
    version = mlflow_client.get_model_version_by_alias("small", "challenger")
    assert version.run_id == result.run_id
    assert version.tags["verdict"] == "passed"
    assert "KL" in version.description
    record = mlflow_client.get_run(result.run_id)
    assert record.info.status == "FINISHED"
    assert record.data.params["dpo.beta"] == "0.5"
    assert record.data.tags["prefect.flow_run_id"]
    assert record.data.metrics["delta/perplexity_ratio"] == pytest.approx(result.report.delta.perplexity_ratio)
    assert {item.dataset.name for item in record.inputs.dataset_inputs} == {"prompts", "pairs"}
    margins = mlflow_client.get_metric_history(result.run_id, "Implicit rewards/margin")
    assert [point.step for point in margins] == [2, 4, 6, 8]
    assert {"config.yaml", "lineage.json", "model_card.md", "report.html", "validation"} <= artifacts(
        mlflow_client, result.run_id
    )
    to_rate = mlflow_client.search_traces(locations=[record.info.experiment_id], run_id=result.run_id)
    assert len(to_rate) == min(result.report.prompts, AlignConfig().registry.review_rows)
    assert {"reward_gain", "log_ratio", "tokens_base"} <= {each.name for each in to_rate[0].info.assessments}


def test_the_registered_model_loads_and_continues_a_text(at_home: Path) -> None:
    run(config(gates=OPEN_GATES))
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{at_home / 'mlflow.db'}")
    loaded = mlflow.transformers.load_model("models:/small@challenger")
    [[written]] = [loaded("we saw this film", max_new_tokens=4)]
    assert written["generated_text"].startswith("we saw this film")


def test_counts_sum_along_the_way(at_home: Path) -> None:
    result = run(config())

    def counts(stage: str) -> dict[str, int]:
        [manifest] = (at_home / "store" / stage).glob("*/manifest.json")
        found: dict[str, int] = json.loads(manifest.read_text(encoding="utf-8"))["counts"]
        return found

    assert sum(counts("prompts").values()) == counts("texts")["kept"]
    assert counts("samples")["samples"] == 4 * counts("prompts")["train"]
    assert counts("pairs")["candidates"] == result.pairs["built"] + counts("pairs")["ties"]
    assert result.pairs["accepted"] + result.pairs["quarantined"] == result.pairs["built"]


def test_a_second_run_computes_nothing_and_registers_nothing_new(events: list[Event], mlflow_client: Any) -> None:
    first = run(config(gates=OPEN_GATES))
    events.clear()
    second = run(config(gates=OPEN_GATES))

    assert {event.kind for event in events} == {"cached"}
    assert second.run_id != first.run_id
    assert second.report == first.report
    assert second.model is not None
    assert first.model is not None
    assert second.model == first.model
    assert first.registered.startswith("small version 1 (challenger)")
    assert second.registered == "small version 1 (challenger); this policy is version 1 already"
    assert len(mlflow_client.search_model_versions("name = 'small'")) == 1


def test_a_model_that_a_gate_refuses_is_kept_on_its_run_and_never_registered(mlflow_client: Any) -> None:
    result = run(config(gates=OPEN_GATES | {"min_win_rate": 1.0}, registry={"model_name": "refused"}))

    assert result.judgement.verdict == "fail"
    assert (result.model, result.registered) == (None, "")
    assert [gate.name for gate in result.judgement.gates if not gate.passed] == ["win_rate"]
    record = mlflow_client.get_run(result.run_id)
    assert record.info.status == "FINISHED"
    assert record.data.tags["plumbline.verdict"] == "fail"
    assert record.data.tags["plumbline.model_uri"].startswith("models:/m-")
    assert not mlflow_client.search_registered_models("name = 'refused'")


def test_a_set_of_pairs_that_breaks_a_bound_stops_the_run_and_the_checks_are_shown(mlflow_client: Any) -> None:
    with pytest.raises(ValidationError, match=r"accepted pairs \d+, must be at least validation\.min_pairs = 48"):
        run(config(validation={"min_pairs": 48}, registry={"experiment": "stopped"}))

    experiment = mlflow_client.get_experiment_by_name("stopped")
    [record] = mlflow_client.search_runs([experiment.experiment_id])
    assert record.info.status == "FAILED"

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        shown = {item.key: item for item in client.read_latest_artifacts()}
        state = client.read_flow_run(shown["run"].flow_run_id).state  # type: ignore[arg-type]
    assert "| accepted pairs |" in str(shown["validation"].data)
    assert state is not None
    assert state.name == "Failed"
    assert (state.message or "").startswith("pairs: accepted pairs ")
    assert (shown["run"].description or "").startswith("pairs: accepted pairs ")
    assert "Stopped at stage 8 of 13: validate pairs. What is" in (shown["run"].description or "")


def test_what_cannot_be_used_and_shows_on_the_way_is_a_failed_run_in_prefect_and_in_mlflow(
    mlflow_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a judge's wrong key does; a run of a night must not end green."""

    def refused(*_: Any) -> None:
        raise ConfigError("reward.judge.api_key_env: the endpoint refused the key")

    monkeypatch.setitem(AFTER, "texts", refused)
    with pytest.raises(ConfigError, match="refused the key"):
        run(config(registry={"experiment": "refused key"}))

    experiment = mlflow_client.get_experiment_by_name("refused key")
    [record] = mlflow_client.search_runs([experiment.experiment_id])
    assert record.info.status == "FAILED"

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(record.data.tags["prefect.flow_run_id"]).state
    assert state is not None
    assert (state.name, state.message) == ("Failed", "reward.judge.api_key_env: the endpoint refused the key")


def test_an_interrupted_training_ends_killed_and_goes_on_from_its_checkpoint(
    at_home: Path, events: list[Event], mlflow_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at step 5 of 8, after the checkpoint of step 4: the next run goes on at 5 and equals a whole one."""
    monkeypatch.setattr(running, "TELL_EVERY", 0.0)
    wanted = config(dpo={"beta": 0.4}, registry={"experiment": "interrupted"})

    def interrupt(event: Event) -> None:
        if event.stage == "policy" and event.done == 5:
            raise KeyboardInterrupt

    running.LISTENERS.append(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(wanted)
    finally:
        running.LISTENERS.remove(interrupt)
    experiment = mlflow_client.get_experiment_by_name("interrupted")
    [record] = mlflow_client.search_runs([experiment.experiment_id])
    assert record.info.status == "KILLED"
    assert [path.name for path in (at_home / "store" / ".work").glob("policy-*/checkpoint-*")] == ["checkpoint-4"]

    events.clear()
    resumed = run(wanted)
    steps = [event.done for event in events if event.stage == "policy" and event.kind == "progress"]
    assert min(steps) == 5
    [policy] = [event.ref for event in events if event.stage == "policy" and event.ref is not None]
    weights = (policy.path / "model" / "model.safetensors").read_bytes()

    import shutil

    shutil.rmtree(policy.path)
    events.clear()
    undisturbed = run(wanted)
    assert (policy.path / "model" / "model.safetensors").read_bytes() == weights
    assert undisturbed.report == resumed.report


def test_the_result_is_shown_in_prefect() -> None:
    result = run(config(gates=OPEN_GATES))

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        shown = {item.key: item for item in client.read_latest_artifacts()}
        of_run = client.read_flow_run(shown["run"].flow_run_id)  # type: ignore[arg-type]
    text = shown["result"].data
    assert isinstance(text, str)
    assert result.judgement.sentence in text
    assert result.run_id in text
    keys = ("run", "progress", "validation", "result")
    assert {shown[key].flow_run_id for key in keys} == {of_run.id}
    assert {shown[key].task_run_id for key in keys} == {None}
    assert shown["progress"].data == 100
    assert of_run.name.startswith("small: hinge, beta 0.5, lr 0.0003, ")
    assert of_run.state is not None
    assert of_run.state.name == "Completed"
    assert (of_run.state.message or "").startswith(result.judgement.sentence)


def test_a_run_that_a_gate_refuses_says_so_in_its_state_and_is_no_failure() -> None:
    result = run(config(gates=OPEN_GATES | {"min_win_rate": 1.0}))

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        shown = {item.key: item for item in client.read_latest_artifacts()}
        state = client.read_flow_run(shown["run"].flow_run_id).state  # type: ignore[arg-type]
    assert state is not None
    assert (state.type, state.name) == ("COMPLETED", "Refused")
    assert (state.message or "").startswith(result.judgement.sentence)


def test_prefect_s_graph_goes_the_way_of_the_data() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import TaskRunResult

    run(config(dpo={"beta": 0.3}, gates=OPEN_GATES))
    with get_client(sync_client=True) as client:
        shown = {item.key: item for item in client.read_latest_artifacts()}
        tasks = until_there(client, shown["run"].flow_run_id)
    titles = {task.id: task.name.rsplit("-", 1)[0] for task in tasks}
    before = {
        titles[task.id]: {
            titles[given.id]
            for found in task.task_inputs.values()
            for given in found
            if isinstance(given, TaskRunResult)
        }
        for task in tasks
    }
    assert before["train policy"] == {"base model", "reference log-probs"}
    assert before["require valid pairs"] == {"validate pairs"}
    assert before["complete the curve"] == {"train policy"}
    assert before["record run"] == {"apply gates"}
    assert before["log model"] == {"apply gates"}


def until_there(client: Any, flow_run_id: Any) -> list[Any]:
    """The task runs of a flow run, once Prefect's server has written the last one down."""
    import time

    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    ends = time.monotonic() + 30
    while True:
        found: list[Any] = client.read_task_runs(flow_run_filter=wanted)
        if any(task.name.startswith("log model") for task in found) or time.monotonic() > ends:
            return found
        time.sleep(0.2)
