"""Runs, models and the registry, on a real MLflow with a database of its own and a tiny random GPT-2."""

import json
import math
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.exceptions import CancelledRun, TerminationSignal

from alignment.config import AlignConfig, flatten
from alignment.errors import Interrupted, ModelError, NothingNewError, StoreError, TrackingError
from alignment.judging.plots import gap_histogram
from alignment.judging.report import GateResult, Judgement, SampleRow
from alignment.stages.store import StageRef
from tasks import publishing
from tasks.curve import LiveCurve
from tasks.registry import connection, models, records, runs, versions
from tests.registered import register
from tests.reports import make_report

CONFIG = AlignConfig()
REPORT = make_report(delta={"kl_per_token": 0.31})
JUDGEMENT = Judgement(
    verdict="fail",
    sentence="Refused: KL per token 0.31 exceeds 0.2.",
    gates=(
        GateResult(name="win_rate", value=0.93, low=0.55, high=None, passed=True, why="x"),
        GateResult(name="kl_per_token", value=0.31, low=None, high=0.2, passed=False, why="y"),
    ),
)
SAMPLE = SampleRow(prompt="the film", base=" was bad", base_reward=-1.0, aligned=" was good", aligned_reward=1.2)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow home")


@pytest.fixture(autouse=True)
def local(home: Path) -> Iterator[None]:
    """Every test writes to one database: making it takes seconds."""
    before = connection._place
    runs.configure(f"sqlite:///{home}/mlflow.db", home / "artifacts")
    yield
    connection._place = before


@pytest.fixture
def run_id() -> str:
    return runs.start_run(CONFIG, "a run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 of one layer and a byte-level BPE, as `save_pretrained` writes them."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["the film was good", "the film was bad"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<eos>", eos_token="<eos>")
    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))
    path = tmp_path_factory.mktemp("tiny")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def logged(home: Path, folder: Path) -> tuple[str, str]:
    """A run and the address of the model on it: logging one takes a second."""
    before = connection._place
    runs.configure(f"sqlite:///{home}/mlflow.db", home / "artifacts")
    run = runs.start_run(CONFIG, "with a model")
    records.log_evaluation(run, REPORT, JUDGEMENT)
    uri = models.log_model(run, folder, CONFIG, "the film", card="# A card")
    connection._place = before
    return run, uri


def run_of(run_id: str) -> Any:
    return connection.client().get_run(run_id)


def artifact(run_id: str, name: str) -> Path:
    return Path(connection.client().download_artifacts(run_id, name))


# Runs


def test_a_run_holds_every_field_of_the_config_and_links_to_prefect(home: Path) -> None:
    tags = {"prefect.flow_run_id": "abc", "prefect.flow_run_url": ""}
    run = run_of(runs.start_run(CONFIG, "calm-owl", tags, note="**why**"))
    assert run.data.params == {name: str(value) for name, value in flatten(CONFIG).items()}
    assert run.info.run_name == "calm-owl"
    assert run.info.artifact_uri.startswith((home / "artifacts").as_uri())
    assert run.data.tags["prefect.flow_run_id"] == "abc"
    assert "prefect.flow_run_url" not in run.data.tags
    assert run.data.tags["mlflow.note.content"] == "**why**"


def test_a_value_longer_than_mlflow_takes_is_cut_visibly() -> None:
    config = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"path": "x" * 7_000})})
    value = run_of(runs.start_run(config, "long")).data.params["data.path"]
    assert len(value) == 6_000
    assert value.endswith("…")


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_as_it_ended(run_id: str, status: runs.Status) -> None:
    runs.finish(run_id, status)
    assert run_of(run_id).info.status == status
    assert run_of(run_id).info.end_time is not None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (CancelledRun("by a person"), "KILLED"),
        (TerminationSignal(15), "KILLED"),
        (Interrupted("asked to"), "KILLED"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_an_error_ends_the_run_and_goes_on_its_way(error: BaseException, status: str) -> None:
    with pytest.raises(type(error)) as raised, runs.run(CONFIG, "ends") as run_id:
        raise error
    assert raised.value is error
    assert run_of(run_id).info.status == status


def test_a_round_with_nothing_new_is_finished_and_says_that_it_was_skipped() -> None:
    with pytest.raises(NothingNewError), runs.run(CONFIG, "skipped") as run_id:
        raise NothingNewError("nothing new to learn from: 3 prompts")
    run = run_of(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["plumbline.verdict"] == "skipped"
    assert run.data.tags["plumbline.reason"] == "nothing new to learn from: 3 prompts"


def test_a_run_without_an_error_is_finished_and_holds_its_config() -> None:
    with runs.run(CONFIG, "ends") as run_id:
        assert run_of(run_id).info.status == "RUNNING"
    assert run_of(run_id).info.status == "FINISHED"
    assert yaml.safe_load(artifact(run_id, "config.yaml").read_text())["dpo"]["beta"] == CONFIG.dpo.beta


def test_an_mlflow_that_fails_at_the_end_does_not_hide_the_error(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        with runs.run(CONFIG, "lost"):
            runs.configure("http://127.0.0.1:9")
            raise ValueError("the reason")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(ValueError, match="the reason"):
            work()
    assert "could not be ended as FAILED: MLflow at http://127.0.0.1:9: connection refused" in caplog.text


def test_a_run_whose_parameters_were_refused_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.model_copy(update={"registry": CONFIG.registry.model_copy(update={"experiment": "refusing"})})

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("Connection reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.log_batch", refuse)
        with pytest.raises(TrackingError) as raised:
            runs.start_run(config, "refused")
    assert raised.value.transient
    (run,) = connection.client().search_runs([connection.experiment("refusing")])
    assert run.info.status == "FAILED"


def test_runs_of_dead_processes_are_ended_by_the_next_one() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    here = {"plumbline.host": socket.gethostname(), "plumbline.pid": str(gone.pid)}
    dead = runs.start_run(CONFIG, "dead", here)
    elsewhere = runs.start_run(CONFIG, "elsewhere", here | {"plumbline.host": "elsewhere"})
    alive = runs.start_run(CONFIG, "alive")
    runs.start_run(CONFIG, "next")
    assert [run_of(run).info.status for run in (dead, elsewhere, alive)] == ["FAILED", "RUNNING", "RUNNING"]
    assert run_of(dead).data.tags["plumbline.ended"].startswith(f"process {gone.pid} on ")


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
    assert sorted(item.step for item in connection.client().get_metric_history(run_id, "loss")) == [1, 2, 3]
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


def test_a_dataset_is_an_input_with_its_digest_schema_and_place(run_id: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path, digest = tmp_path / "pairs.parquet", "0123456789abcdef" * 4
    parquet.write_table(pa.table({"chosen": ["a", "b"], "gap": [0.5, 1.5]}), path)
    records.log_dataset(run_id, path, "pairs", "training", digest)
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
    records.log_samples_table(run_id, [SAMPLE])
    (tmp_path / "checks.json").write_text("{}")
    records.log_file(run_id, tmp_path / "checks.json", "validation")
    assert artifact(run_id, "plots/gaps.png").read_bytes().startswith(b"\x89PNG")
    assert artifact(run_id, "model_card.md").read_text(encoding="utf-8") == "# Card — ✓"
    assert records.read_json(artifact(run_id, "lineage.json")) == {"pairs": "a"}
    table = records.read_json(artifact(run_id, "samples.json"))
    assert dict(zip(table["columns"], table["data"][0], strict=True)) == SAMPLE.model_dump()
    assert artifact(run_id, "validation/checks.json").read_text() == "{}"


def test_a_local_run_is_shown_by_a_command(run_id: str, home: Path) -> None:
    """The home has a blank in its name: the command is quoted for a shell."""
    assert runs.run_url(run_id).startswith(f"mlflow ui --backend-store-uri 'sqlite:///{home}/mlflow.db', then http://")
    assert run_id in runs.run_url(run_id)


# What a run recorded, read again

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
    read = records._read_artifact

    def count(run_id: str, name: str) -> str:
        fetched.append(run_id)
        return read(run_id, name)

    monkeypatch.setattr(records, "_read_artifact", count)
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


@pytest.mark.parametrize("before", [None, "http://mlflow:5000"])
def test_mlflow_s_global_state_is_put_back(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if before:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    with connection.fluent():
        assert mlflow.get_tracking_uri() == connection.place().uri
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://another:5000")
    assert mlflow.get_tracking_uri() == "http://another:5000"


# Models and the registry


def test_a_model_is_logged_registered_loaded_by_its_alias_and_writes(logged: tuple[str, str], folder: Path) -> None:
    import mlflow

    run, uri = logged
    tags = {"gate.win_rate": "passed", "plumbline.verdict": "pass"}
    version = register(run, uri, "tiny", "challenger", key="k1", description="# Card\n" * 2_000, tags=tags)
    assert (version.uri, version.aliases, version.run_id) == ("models:/tiny/1", ("challenger",), run)
    assert version.tags == tags | {"plumbline.key": "k1"}
    item = connection.client().get_model_version("tiny", "1")
    assert len(item.description) == 5_000
    assert item.description.endswith("the whole text is in the run's artifact model_card.md.")
    with connection.fluent():
        model = mlflow.pyfunc.load_model("models:/tiny@challenger")
    (text,) = model.predict(["the film"], params={"max_new_tokens": 4, "do_sample": False})
    assert text.startswith("the film")
    assert len(text) > len("the film")


def test_the_model_on_its_run_carries_its_metrics_pins_and_card(logged: tuple[str, str]) -> None:
    run, uri = logged
    model = connection.client().get_logged_model(uri.removeprefix("models:/"))
    assert (model.source_run_id, model.status) == (run, "READY")
    assert {item.key: item.value for item in model.metrics}["delta/win_rate"] == 0.93
    root = Path(model.artifact_location.removeprefix("file://").replace("%20", " "))
    requirements = (root / "requirements.txt").read_text().split()
    assert all("==" in line and "+" not in line for line in requirements)
    assert {line.partition("==")[0] for line in requirements} >= {"mlflow", "torch", "transformers"}
    assert "# A card" in (root / "model_card.md").read_text()
    assert not [file for file in root.rglob("*") if file.suffix in {".bin", ".pt", ".pkl"}]


def test_the_model_s_readme_is_its_card(run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.json").write_text(REPORT.model_dump_json())
    (tmp_path / "samples.json").write_text(json.dumps([SAMPLE.model_dump()]))
    ref = StageRef(stage="report", key="k", path=tmp_path, digest="d", counts={}, seconds=0.0)
    given: dict[str, Any] = {}

    def log_model(*_: Any, **options: Any) -> str:
        given.update(options)
        return "models:/m-1"

    monkeypatch.setattr(models, "log_model", log_model)
    refs = {"report": ref, "policy": ref.model_copy(update={"digest": "new"})}
    assert publishing.log_model.fn(CONFIG, refs, JUDGEMENT, run_id) is None
    assert JUDGEMENT.sentence in given["card"]


def test_a_version_is_found_by_its_policy(logged: tuple[str, str]) -> None:
    for key in ("k1", "k2", "k1"):
        register(*logged, "found", "challenger", key=key)
    assert versions.find_version("found", "k1") == versions.get_version("found", "3")
    assert versions.find_version("found", "k2") == versions.get_version("found", "2")
    assert versions.find_version("found", "k3") is None
    assert versions.find_version("never registered", "k1") is None


def test_aliases_move_and_go(logged: tuple[str, str]) -> None:
    run, uri = logged
    for key in ("k1", "k2"):
        register(run, uri, "moving", "challenger", key=key)
    versions.set_alias("moving", "champion", "1")
    versions.set_alias("moving", "champion", "2")
    champion = versions.find_alias("moving", "champion")
    assert champion is not None
    assert (champion.version, champion.aliases) == ("2", ("challenger", "champion"))
    versions.drop_alias("moving", "champion")
    versions.drop_alias("moving", "champion")
    assert versions.find_alias("moving", "champion") is None
    assert versions.find_alias("never registered", "champion") is None


def test_an_exported_model_has_the_same_logits(logged: tuple[str, str], folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, uri = logged
    register(run, uri, "exported", "challenger", key="k1")
    assert versions.resolve_model_uri("models:/exported@challenger") == "models:/exported/1"
    assert versions.resolve_model_uri("models:/exported/1") == "models:/exported/1"
    versions.export_model("models:/exported@challenger", tmp_path / "out")
    logits = []
    for source in (folder, tmp_path / "out"):
        ids = AutoTokenizer.from_pretrained(source)("the film was", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits.append(AutoModelForCausalLM.from_pretrained(source, use_safetensors=True)(ids).logits)
    assert torch.equal(*logits)
    assert {file.stat().st_mode & 0o044 for file in (tmp_path / "out").iterdir()} == {0o044}


def test_a_config_that_names_registered_models_gets_local_folders(logged: tuple[str, str], tmp_path: Path) -> None:
    run, uri = logged
    register(run, uri, "based", "champion", key="k1")
    config = CONFIG.model_copy(update={"base": CONFIG.base.model_copy(update={"model": "models:/based@champion"})})
    for _ in range(2):
        local_config, tags = versions.with_local_models(config, tmp_path)
    (path,) = (tmp_path / versions.folder_name("based")).iterdir()
    assert path.name == f"1-{versions.get_version('based', '1').identity}"
    assert local_config.base.model == str(path)
    assert local_config.reward == CONFIG.reward
    assert (path / "model.safetensors").exists()
    assert tags == {"plumbline.base": "models:/based/1"}
    assert versions.with_local_models(CONFIG, tmp_path) == (CONFIG, {})


def test_a_name_s_folder_is_short_in_bytes_and_another_one_for_every_name() -> None:
    """On a disk that knows no case as well, and whatever a name holds; file systems take 255 bytes."""
    names = [
        "电" * 100,
        "电" * 200,
        "A",
        "a",
        "a b",
        "a-b",
        "a#b",
        "a%23b",
        "-",
        ".a",
        "a.",
        "~",
        "é",
        "e\u0301",
        "CON",
    ]
    folders = [versions.folder_name(name) for name in names]
    assert len({folder.lower() for folder in folders}) == len(names)
    assert max(len(folder.encode()) for folder in folders) <= 64
    assert not {".", "..", "~"} & set(folders)


@pytest.mark.parametrize("name", ["电" * 200, "a#b", "100% a%20b", "-a b;c", "~", ".a.", "$(x) & {y}"])
def test_a_model_is_brought_in_by_every_name_that_the_configuration_takes(
    logged: tuple[str, str], tmp_path: Path, name: str
) -> None:
    import mlflow

    AlignConfig.model_validate({"registry": {"model_name": name}})
    register(*logged, name, "challenger")
    assert (versions.local_model(f"models:/{name}@challenger", tmp_path) / "model.safetensors").exists()
    with connection.fluent():
        assert mlflow.transformers.load_model(f"models:/{name}/1").task == "text-generation"


def test_the_same_name_and_number_of_another_registry_is_another_copy(logged: tuple[str, str], tmp_path: Path) -> None:
    run, uri = logged
    paths = []
    for _ in range(2):
        register(run, uri, "recreated", "champion", key="k1")
        paths.append(versions._local("models:/recreated@champion", tmp_path)[1])
        connection.client().delete_registered_model("recreated")
        time.sleep(0.01)
    assert paths[0] != paths[1]


def test_a_full_disk_while_a_model_is_fetched_is_the_store_s_error(
    logged: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(*logged, "large", "champion", key="k1")

    def full(*_: Any, dst_path: str, **__: Any) -> str:
        assert Path(dst_path).parent == tmp_path / versions.folder_name("large")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", full)
    with pytest.raises(StoreError, match="No space left on device"):
        versions._local("models:/large@champion", tmp_path)
    assert list((tmp_path / versions.folder_name("large")).iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/known@nobody", "its aliases are: challenger -> version 1"),
        ("models:/known/99", "its aliases are: challenger -> version 1"),
        ("models:/unknown@champion", "no model is registered as 'unknown'"),
        ("models:/unknown/1", "no model is registered as 'unknown'"),
        ("models:/known", "expected models:/name@alias or models:/name/3"),
        ("runs:/1/model", "expected models:/name@alias or models:/name/3"),
    ],
)
def test_an_address_that_leads_nowhere_says_what_there_is(logged: tuple[str, str], uri: str, message: str) -> None:
    if versions.read_model("known") is None:
        register(*logged, "known", "challenger")
    with pytest.raises(ModelError, match=message):
        versions.resolve_model_uri(uri)


def test_an_earlier_run_s_model_is_found_by_its_policy(logged: tuple[str, str]) -> None:
    run, uri = logged
    name = CONFIG.registry.experiment
    runs.tag(run, {"plumbline.policy": "d1", "plumbline.model_uri": uri})
    assert models.find_logged_model(name, "d1") == uri
    assert models.find_logged_model(name, "d2") is None
    assert models.find_logged_model("no such experiment", "d1") is None
    runs.tag(run, {"plumbline.policy": "gone", "plumbline.model_uri": "models:/m-" + "0" * 32})
    assert models.find_logged_model(name, "gone") is None


def test_a_folder_without_weights_is_refused(run_id: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no weights"):
        models.log_model(run_id, tmp_path, CONFIG, "the film")


# Failures


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "http://127.0.0.1:9",
            "MLflow at http://127.0.0.1:9: connection refused; start it, or unset MLFLOW_TRACKING_URI",
        ),
        ("http://me:secret@127.0.0.1:9", "MLflow at http://127.0.0.1:9: connection refused"),
        ("http://host.invalid", "MLflow at http://host.invalid: no such host"),
        ("./mlruns", "not an address that works"),
    ],
)
def test_a_server_that_cannot_be_reached_fails_fast(uri: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    runs.configure(uri)
    started = time.monotonic()
    with pytest.raises(TrackingError) as raised:
        runs.check()
    assert str(raised.value).startswith("MLflow at ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - started < 5


def test_a_server_that_has_ended_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    runs.configure("http://127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"^MLflow at http://127\.0\.0\.1:9: connection refused; [^\n]*$") as raised:
        runs.start_run(CONFIG, "lost")
    assert raised.value.transient


def test_a_file_that_is_no_database_fails_fast(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    runs.configure(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(TrackingError, match="file is not a database"):
        runs.check()


def test_a_reachable_database_passes_the_check() -> None:
    runs.check()


def test_a_deleted_experiment_says_the_way_out() -> None:
    config = CONFIG.model_copy(update={"registry": CONFIG.registry.model_copy(update={"experiment": "doomed"})})
    run = run_of(runs.start_run(config, "first"))
    connection.client().delete_experiment(run.info.experiment_id)
    with pytest.raises(TrackingError, match="experiment 'doomed' was deleted; restore it there, or set another"):
        runs.start_run(config, "second")


def test_a_refusal_of_mlflow_s_is_one_line(run_id: str) -> None:
    with pytest.raises(TrackingError, match=r"^MLflow at sqlite:[^\n]*$") as raised:
        records.log_history(run_id, [{"step": 0, "a metric: with a colon?": 1.0}])
    assert not raised.value.transient


def test_a_task_in_another_process_finds_the_place_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_place", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert connection.place().uri == "http://mlflow:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("PLUMBLINE_HOME", "/somewhere")
    assert connection.place() == connection.Place("sqlite:////somewhere/mlflow.db", Path("/somewhere/artifacts"))
