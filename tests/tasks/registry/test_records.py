"""What a run records in MLflow, and how it is read again."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig
from alignment.errors import TrackingError
from alignment.judging.plots import gap_histogram
from alignment.rows import PAIRS
from alignment.stages.store import StageRef
from tasks.curve import LiveCurve
from tasks.registry import connection, records, runs, versions
from tests.reports import make_report
from tests.tasks.registry.judged import CONFIG, JUDGEMENT, REPORT, SAMPLE, artifact, run_of

pytestmark = pytest.mark.usefixtures("local")


def test_a_curve_is_completed_without_its_rows_being_repeated(run_id: str) -> None:
    rows = [{"step": step, "loss": 1.0 / step, "margin": 0.1} for step in (2, 4, 6, 8)]
    records.log_history(run_id, rows[2:3])
    for _ in range(2):
        records.complete_history(run_id, rows)
    records.complete_history(run_id, [])
    history = connection.client().get_metric_history(run_id, "loss")
    assert sorted(item.step for item in history) == [2, 4, 6, 8]


def test_a_failing_mlflow_does_not_stop_a_training(
    run_id: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows that were refused come with the next one that is taken; one warning tells of it."""
    curve = LiveCurve(run_id)
    send = records.log_history

    def fails(*_: Any) -> None:
        raise TrackingError("MLflow at http://x: connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(records, "log_history", fails)
        for step in (1, 2):
            curve({"step": step, "loss": 1.0})
            curve.not_before = 0.0
    assert records.log_history is send
    curve({"step": 3, "loss": 1.0})
    history = connection.client().get_metric_history(run_id, "Training/loss")
    assert sorted(item.step for item in history) == [1, 2, 3]
    assert len([record for record in caplog.records if "training goes on" in record.message]) == 1


def test_history_keeps_its_steps_across_batches(run_id: str) -> None:
    records.log_history(run_id, [{"step": step, "loss": 1 / (step + 1), "lr": 0.1} for step in range(700)])
    records.log_history(run_id, [{"step": 700, "loss": 0.0}])
    history = connection.client().get_metric_history(run_id, "loss")
    assert sorted(item.step for item in history) == list(range(701))
    assert {item.step: item.value for item in history}[1] == 0.5


def test_values_that_are_not_finite_are_kept_as_holes_and_named(run_id: str) -> None:
    records.log_history(run_id, [{"step": 1, "loss": math.inf, "lr": 0.1}, {"step": 2, "loss": math.nan}])
    values = [item.value for item in connection.client().get_metric_history(run_id, "loss")]
    assert len(values) == 2
    assert all(math.isnan(value) for value in values)
    assert run_of(run_id).data.tags["plumbline.not_finite.loss"] == "nan at step 2"
    assert "plumbline.not_finite.lr" not in run_of(run_id).data.tags


def test_the_evaluation_becomes_metrics_and_the_verdict_a_tag(run_id: str) -> None:
    records.log_evaluation(run_id, REPORT, JUDGEMENT)
    records.log_counts(run_id, {"pairs": {"built": 512}})
    data = run_of(run_id).data
    wanted = {
        "Result/reward_gain": 1.5,
        "Result/win_rate": 0.93,
        "Result/kl_per_token": 0.31,
        "Result/passed": 0.0,
        "base/reward_mean": -0.3,
        "aligned/reward_mean": 1.2,
        "delta/reward_gain_low": 1.4,
        "delta/reward_gain_high": 1.6,
        "evaluation/winners_mean": 0.66,
        "gate/win_rate": 1.0,
        "gate/kl_per_token": 0.0,
        "counts/pairs/built": 512.0,
    }
    assert wanted.items() <= data.metrics.items()
    assert "delta/win_rate_length_matched" not in data.metrics
    assert data.tags["plumbline.verdict"] == "fail"
    assert data.tags["plumbline.reason"] == JUDGEMENT.sentence
    assert data.tags["verdict"] == "refused"


def test_mlflow_sorts_the_curves_and_the_result_before_every_other_group(run_id: str) -> None:
    records.log_evaluation(run_id, REPORT, JUDGEMENT)
    records.log_history(run_id, [records.in_training({"step": 1, "loss": 0.7, "rewards/margin": 0.1})])
    groups = sorted({name.rpartition("/")[0] for name in run_of(run_id).data.metrics})
    assert groups[:3] == ["Implicit rewards", "Result", "Training"]
    assert len(groups) > 5


def test_the_figures_that_people_see_first_are_rounded_and_the_others_are_not(run_id: str) -> None:
    records.log_evaluation(run_id, make_report(delta={"kl_per_token": 0.0131729}), JUDGEMENT)
    metrics = run_of(run_id).data.metrics
    assert (metrics["Result/kl_per_token"], metrics["delta/kl_per_token"]) == (0.01317, 0.0131729)


def test_a_report_without_a_biased_baseline_has_no_metric_of_it(run_id: str) -> None:
    records.log_evaluation(run_id, REPORT.model_copy(update={"winners_mean": None}), JUDGEMENT)
    assert "evaluation/winners_mean" not in run_of(run_id).data.metrics


def test_a_dataset_is_an_input_with_its_digest_schema_and_place(run_id: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path, digest = tmp_path / "pairs.parquet", "0123456789abcdef" * 4
    parquet.write_table(pa.table({"chosen": ["a", "b"], "gap": [0.5, 1.5]}), path)
    records.log_dataset(run_id, tmp_path, PAIRS, "pairs", "training", digest)
    (found,) = run_of(run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("pairs", digest[:36])
    assert {item.key: item.value for item in found.tags} == {"mlflow.data.context": "training", "digest": digest}
    assert json.loads(found.dataset.source) == {"uri": str(path)}
    assert json.loads(found.dataset.profile)["num_rows"] == 2
    assert [column["name"] for column in json.loads(found.dataset.schema)["mlflow_colspec"]] == ["chosen", "gap"]


def test_figures_texts_and_samples_are_artifacts(run_id: str, tmp_path: Path) -> None:
    records.log_figures(run_id, {"gaps": gap_histogram([0.5, 1.0], 0.1)})
    records.log_text(run_id, "model_card.md", "# Card — ✓")
    records.log_json(run_id, "lineage.json", {"pairs": Path("a")})
    for _ in range(2):  # as a task that is tried again
        records.log_samples_table(run_id, [SAMPLE])
    (tmp_path / "checks.json").write_text("{}")
    records.log_file(run_id, tmp_path / "checks.json", "validation")
    assert artifact(run_id, "plots/gaps.png").read_bytes().startswith(b"\x89PNG")
    assert artifact(run_id, "model_card.md").read_text(encoding="utf-8") == "# Card — ✓"
    assert records.read_json(artifact(run_id, "lineage.json")) == {"pairs": "a"}
    table = records.read_json(artifact(run_id, "samples.json"))
    assert [dict(zip(table["columns"], row, strict=True)) for row in table["data"]] == [SAMPLE.model_dump(mode="json")]
    assert artifact(run_id, "validation/checks.json").read_text() == "{}"


FAR = make_report(delta={"kl_per_token": 0.31}, drift={"kl_per_token": math.inf})


def test_a_judged_run_is_read_back_as_it_was(run_id: str) -> None:
    """Texts with quotes, line breaks and signs, and a figure that is not finite, survive."""
    report = FAR
    samples = [SAMPLE, SAMPLE.model_copy(update={"base": ' “odd”\n\t"text" ✓', "base_reward": -1e-9})]
    records.log_text(run_id, records.REPORT, report.model_dump_json(indent=2))
    records.log_samples_table(run_id, samples)
    assert records.read_record(run_id, AlignConfig.model_fields) == (CONFIG, report, samples)
    assert versions.was_judged(run_id)


def test_a_configuration_of_every_kind_of_value_is_read_back() -> None:
    config = AlignConfig.model_validate(
        {"data": {"positive_label": "1"}, "dpo": {"learning_rate": 1e-5}, "registry": {"model_name": "name #1"}}
    )
    run = runs.start_run(config, "a run")
    records.log_text(run, records.REPORT, REPORT.model_dump_json())
    records.log_samples_table(run, [SAMPLE])
    assert records.read_record(run, AlignConfig.model_fields)[0] == config


def test_a_run_that_was_not_judged_has_no_record(run_id: str) -> None:
    with pytest.raises(TrackingError, match=r"^MLflow at [^\n]*$"):
        records.read_record(run_id, ())
    with pytest.raises(TrackingError, match=r"^MLflow at [^\n]*$"):
        records.read_record("0" * 32, ())
    assert not versions.was_judged(run_id)


def test_drift_is_logged_where_it_was_measured(run_id: str) -> None:
    records.log_evaluation(run_id, FAR, JUDGEMENT)
    data = run_of(run_id).data
    found = {name: value for name, value in data.metrics.items() if name.startswith("drift/")}
    assert math.isnan(found.pop("drift/kl_per_token"))
    assert FAR.drift is not None
    expected = FAR.drift.model_dump(exclude={"kl_per_token"})
    assert found == {f"drift/{name}": value for name, value in expected.items()}
    assert data.tags["plumbline.not_finite.drift/kl_per_token"] == "inf at step 0"


def test_without_an_anchor_no_drift_is_logged(run_id: str) -> None:
    records.log_evaluation(run_id, REPORT, JUDGEMENT)
    assert not [name for name in run_of(run_id).data.metrics if name.startswith("drift/")]


def test_the_lineage_of_a_run_is_read_back(run_id: str, tmp_path: Path) -> None:
    ref = StageRef(stage="base", key="k1", path=tmp_path, digest="d1", counts={"steps": 3}, seconds=1.5)
    records.log_json(run_id, "lineage.json", {"base": ref.model_dump(mode="json")})
    assert records.read_lineage(run_id) == {"base": ref}


def test_a_run_without_a_lineage_has_an_empty_one(run_id: str) -> None:
    assert records.read_lineage(run_id) == {}
    assert records.read_lineage("0" * 32) == {}


def test_a_lineage_that_cannot_be_read_now_is_not_an_empty_one(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for empty, another model would become the anchor for good."""

    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", fails)
    with pytest.raises(TrackingError) as raised:
        records.read_lineage(run_id)
    assert raised.value.transient


def trained_on(name: str, *prompt_ids: str, experiment: str = "rounds", status: Any = "FINISHED") -> str:
    registry_config = CONFIG.registry.model_copy(update={"experiment": experiment, "model_name": name})
    run = runs.start_run(CONFIG.model_copy(update={"registry": registry_config}), "a round")
    records.log_used_prompts(run, name, prompt_ids)
    if status != "RUNNING":
        runs.finish(run, status)
    return run


def test_used_prompts_are_those_of_all_rounds_of_a_model_wherever_they_ran() -> None:
    trained_on("seen", "p1", "p2")
    trained_on("seen", "p2", "p3", experiment="elsewhere")
    trained_on("seen too", "p4")
    assert records.used_prompts("seen") == {"p1", "p2", "p3"}
    assert records.used_prompts("seen too") == {"p4"}
    assert records.used_prompts("see") == set()


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_a_round_that_did_not_end_is_run_again_with_the_same_prompts(status: str) -> None:
    """It was judged, and died before its model was registered: what it computed must be found again."""
    trained_on(f"died {status}", "p1", status=status)
    assert records.used_prompts(f"died {status}") == set()


def test_the_same_prompts_are_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep's points, and runs that found everything in the store, share one list."""
    for _ in range(3):
        trained_on("shared", "p1", "p2")
    trained_on("shared", "p3")
    fetched: list[str] = []
    read = records.read_artifact

    def count(run_id: str, name: str) -> str:
        fetched.append(run_id)
        return read(run_id, name)

    monkeypatch.setattr(records, "read_artifact", count)
    assert records.used_prompts("shared") == {"p1", "p2", "p3"}
    assert len(fetched) == 2


def test_more_runs_than_mlflow_lists_at_once_are_all_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        trained_on("many", f"p{number}")
    search = connection.client().search_runs
    monkeypatch.setattr(
        "mlflow.MlflowClient.search_runs",
        lambda _self, *given, **options: search(*given, **options | {"max_results": 2}),
    )
    assert records.used_prompts("many") == {f"p{number}" for number in range(5)}
