"""The model that a run keeps: logged, loaded by its alias, and found again by its policy."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.config import build_config, merge
from alignment.errors import ModelError
from alignment.stages.store import StageRef
from tasks import publishing
from tasks.registry import connection, models, runs
from tasks.registry.descriptions import MAX_LENGTH, ROOM
from tests.registered import register
from tests.tasks.registry.judged import CONFIG, JUDGEMENT, REPORT, SAMPLE

pytestmark = pytest.mark.usefixtures("local")


def test_a_model_is_logged_registered_loaded_by_its_alias_and_writes(logged: tuple[str, str], folder: Path) -> None:
    import mlflow

    run, uri = logged
    tags = {"gate.win_rate": "passed", "plumbline.verdict": "pass"}
    version = register(run, uri, "tiny", "challenger", key="k1", description="# Card\n" * 2_000, tags=tags)
    assert (version.uri, version.aliases, version.run_id) == ("models:/tiny/1", ("challenger",), run)
    assert version.tags == tags | {"plumbline.key": "k1"}
    item = connection.client().get_model_version("tiny", "1")
    assert len(item.description) == MAX_LENGTH - ROOM
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


def test_an_adapter_is_kept_on_the_run_of_its_model(
    run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.json").write_text(REPORT.model_dump_json())
    (tmp_path / "samples.json").write_text(json.dumps([SAMPLE.model_dump()]))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    ref = StageRef(stage="report", key="k", path=tmp_path, digest="adapted", counts={}, seconds=0.0)
    monkeypatch.setattr(models, "log_model", lambda *_, **__: "models:/m-1")
    publishing.log_model.fn(CONFIG, {"report": ref, "policy": ref}, JUDGEMENT, run_id)
    kept = connection.client().list_artifacts(run_id, "adapter")
    assert [item.path for item in kept] == ["adapter/adapter_config.json"]


@pytest.mark.parametrize(("adapter", "told"), [("merged", False), ("separate", True)])
def test_a_run_says_where_a_version_is_an_adapter_alone(
    logged: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, told: bool
) -> None:
    (tmp_path / "report.json").write_text(REPORT.model_dump_json())
    (tmp_path / "samples.json").write_text(json.dumps([SAMPLE.model_dump()]))
    ref = StageRef(stage="report", key="k", path=tmp_path, digest="d", counts={}, seconds=0.0)
    run, uri = logged
    monkeypatch.setattr(models, "log_model", lambda *_, **__: uri)
    config = merge(CONFIG.model_dump(), {"dpo": {"adapter": "lora"}, "registry": {"adapter": adapter}})
    passed = JUDGEMENT.model_copy(update={"verdict": "pass"})
    refs = {"report": ref, "policy": ref, "base": ref}
    made = publishing.log_model.fn(build_config(config), refs, passed, run)
    assert made is not None
    assert made.sentence == f"{made.title}{'; the adapter alone, over a base that is pinned' if told else ''}"


def test_of_given_pairs_the_settings_of_serving_tell_models_apart(tmp_path: Path) -> None:
    """Sampled pairs hang on them already, so there the policy's content says it all."""
    ref = StageRef(stage="policy", key="k", path=tmp_path, digest="d", counts={}, seconds=0.0)
    refs = {"policy": ref, "prompts": ref}
    given = {
        "data": {"path": "pairs.jsonl"},
        "prompts": {"source": "pairs"},
        "pairs": {"source": "given"},
        "base": {"model": "b"},
        "reward": {"model": "r"},
    }
    cold = merge(given, {"sampling": {"temperature": 0.3}})
    keys = [publishing.policy_key(build_config(values), refs) for values in ({}, given, cold)]
    assert keys[0] == "d"
    assert len({*keys}) == 3


def test_an_earlier_run_s_model_is_found_by_its_policy(logged: tuple[str, str]) -> None:
    run, uri = logged
    name = CONFIG.registry.experiment
    runs.tag(run, {"plumbline.policy": "d1", "plumbline.model_uri": uri})
    assert models.find_logged_model(name, "d1") == uri
    assert models.find_logged_model(name, "d2") is None
    assert models.find_logged_model("no such experiment", "d1") is None
    runs.tag(run, {"plumbline.policy": "gone", "plumbline.model_uri": "models:/m-" + "0" * 32})
    assert models.find_logged_model(name, "gone") is None
    runs.tag(run, {"plumbline.policy": "d1", "plumbline.model_uri": uri})
    later = runs.start_run(CONFIG, "later")
    runs.tag(later, {"plumbline.policy": "d1", "plumbline.model_uri": "models:/m-" + "0" * 32})
    assert models.find_logged_model(name, "d1") == uri, "the newest has none any more, the one before it has"


def test_a_folder_without_weights_is_refused(run_id: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no weights"):
        models.log_model(run_id, tmp_path, CONFIG, "the film")
