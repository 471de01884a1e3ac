"""The page of a run: made of what MLflow holds, of this release's record and of an older one's."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.errors import ModelError, RecordError, TrackingError
from alignment.rows import ACCEPTED, EVALUATED, QUARANTINED
from alignment.stages.store import StageRef
from tasks import reports
from tasks.registry import connection, recorded, records, runs, versions
from tests.registered import make_run, make_version, report

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(autouse=True)
def _local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_place", None)
    runs.configure(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")


def finished(root: Path) -> dict[str, StageRef]:
    """Stages whose rows are known: 3 accepted pairs and 4 quarantined ones, and rewards of both models."""
    refs = {}
    for name in ("validation", "before", "after"):
        folder = root / name
        folder.mkdir()
        refs[name] = StageRef(stage=name, key="k", path=folder, digest=name, counts={}, seconds=1.0)
    rewards = {"before": [0.0, 1.0, None], "after": [2.0, 3.0, 4.0]}
    for name, values in rewards.items():
        pq.write_table(pa.table({"reward": pa.array(values, pa.float64())}), root / name / EVALUATED.file)
    pairs = {"gap": [1.0, 2.0, 3.0], "chosen_tokens": [5, 6, 7], "rejected_tokens": [5, 5, 5]}
    pq.write_table(pa.table(pairs), root / "validation" / ACCEPTED.file)
    broken = [["score_gap"], ["score_gap"], ["score_gap", "not_blank"], ["length_ratio"]]
    pq.write_table(pa.table({"broken": broken}), root / "validation" / QUARANTINED.file)
    return refs


def test_what_only_the_page_shows_is_counted_from_the_stages(tmp_path: Path) -> None:
    found = reports.beside_the_record(finished(tmp_path))
    assert found["broken"] == {"score gap": 2, "score gap, not blank": 1, "length ratio": 1}
    assert {name: sum(counts) for name, counts in found["rewards"]["counts"].items()} == {"base": 2, "aligned": 3}
    assert found["gaps"]["means"] == {"pairs": 2.0}
    assert found["lengths"]["means"] == {"chosen": 6.0, "rejected": 5.0}
    assert found["libraries"].keys() >= {"Python", "plumbline", "torch"}
    json.dumps(found, allow_nan=False)


def test_a_run_has_its_page_as_an_artifact_and_it_is_the_same_later(tmp_path: Path) -> None:
    run, _ = make_run("a run", found=report())
    records.log_history(run, [records.in_training({"step": step, "loss": 1 / step}) for step in (1, 2)])
    stages = finished(tmp_path)
    counted = stages["validation"].model_copy(update={"counts": {"pairs": 7, "accepted": 3, "quarantined": 4}})
    records.log_json(run, "lineage.json", {"validation": counted.model_dump(mode="json")})
    reports.log_page(run, stages)
    logged = records.read_artifact(run, reports.PAGE)
    assert logged == reports.page(run)
    for told in ("a run", "May be registered", "score gap, not blank", "loss 1 at step 1, 0.5 at step 2"):
        assert told in logged
    assert recorded.read_run(run).curves == {"loss": [(1, 1.0), (2, 0.5)]}


def test_a_run_goes_on_without_its_page_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, _ = make_run("a run", found=report())
    records.log_text(run, records.REPORT, "{}")
    reports.log_page(run, finished(tmp_path))
    (told,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert told.startswith(f"report.html of run {run} was not made: RecordError: ")
    assert f"`plumbline report {run}` tries again" in told


def test_the_page_of_a_version_says_which_it_is() -> None:
    made = make_version("film")
    assert recorded.read_run(made.run_id).model == "film version 1 (challenger)"
    assert recorded.find("film").run_id == made.run_id
    assert recorded.find("film").title == "film version 1 (challenger)"
    versions.set_alias("film", "champion", "1")
    other = make_version("film")
    assert recorded.find("film").title == "film version 1 (champion)"
    assert recorded.find("film@challenger").run_id == recorded.find("models:/film/2").run_id == other.run_id


def test_a_run_is_found_by_how_its_id_begins() -> None:
    first, second = make_run("a")[0], make_run("b")[0]
    assert recorded.find(first).run_id == first
    shared = next(n for n in range(32) if first[:n] != second[:n])
    assert recorded.find(first[: max(4, shared)]).run_id == first
    assert recorded.find(first[:8]).title == f"run {first[:8]}"


@pytest.mark.parametrize("what", ["nothing", "0000000", "abc", "run_id' OR '1'='1", "%"])
def test_what_names_nothing_is_refused(what: str) -> None:
    make_run("a")
    with pytest.raises(ModelError, match="no run's id begins so"):
        recorded.find(what)


def test_an_older_record_has_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "older"
    folder.mkdir()
    for file in (FIXTURES / "schema_1").iterdir():
        if file.name in {"config.yaml", "report.json", "samples.json"}:
            (folder / file.name).write_bytes(file.read_bytes())
    run, _ = make_run("old", record=folder)
    records.log_history(run, [{"step": 5, "loss": 0.5}])
    page = reports.page(run)
    assert "no lineage" in page
    assert "no distributions" in page
    assert "loss 0.5 at step 5" in page


def test_a_run_that_was_never_judged_has_none_and_says_how_it_ended() -> None:
    run, _ = make_run("died", record=False, tags={"plumbline.reason": "the disk was full"})
    with pytest.raises(RecordError, match=r"never judged.*the disk was full"):
        reports.page(run)
    with pytest.raises(TrackingError):
        reports.page("0" * 32)


def test_passwords_in_settings_are_not_shown(tmp_path: Path) -> None:
    run, _ = make_run("secret")
    config = tmp_path / "config.yaml"
    config.write_text("data: {path: 'postgresql://user:hunter2@host/x.csv'}\n")
    records.log_file(run, config)
    page = reports.page(run)
    assert "hunter2" not in page
    assert "postgresql://host/x.csv" in page
