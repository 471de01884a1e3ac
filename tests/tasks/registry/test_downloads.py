"""Registered models as local folders: the same weights, one folder per version, and errors that say what there is."""

import time
from pathlib import Path
from typing import Any

import pytest

from alignment import links
from alignment.config import AlignConfig
from alignment.errors import ModelError, StoreError
from tasks.registry import connection, downloads, versions
from tests.registered import register
from tests.tasks.registry.judged import CONFIG

pytestmark = pytest.mark.usefixtures("local")


def test_an_exported_model_has_the_same_logits(logged: tuple[str, str], folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, uri = logged
    register(run, uri, "exported", "challenger", key="k1")
    assert downloads.resolve_model_uri("models:/exported@challenger") == "models:/exported/1"
    assert downloads.resolve_model_uri("models:/exported/1") == "models:/exported/1"
    downloads.export_model("models:/exported@challenger", tmp_path / "out")
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
        local_config, tags = downloads.with_local_models(config, tmp_path)
    (path,) = (tmp_path / downloads.folder_name("based")).iterdir()
    assert path.name == f"1-{versions.get_version('based', '1').identity}"
    assert local_config.base.model == str(path)
    assert local_config.reward == CONFIG.reward
    assert (path / "model.safetensors").exists()
    assert tags == {"plumbline.base": "models:/based/1"}
    assert downloads.with_local_models(CONFIG, tmp_path) == (CONFIG, {})


def test_a_model_of_this_machine_s_mlflow_is_kept_once(
    logged: tuple[str, str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for who takes it away and may write to it; without references, which share blocks and no name."""
    knows_references = links._referred(folder / "model.safetensors", tmp_path / "probe")
    monkeypatch.setattr(links, "FICLONE", 0)
    run, uri = logged
    register(run, uri, "shared", "champion", key="k1")
    here = downloads.artifacts_here(uri)
    assert here is not None
    used = downloads.local_model("models:/shared@champion", tmp_path / "used")
    downloads.export_model("models:/shared@champion", tmp_path / "taken")
    weights = here / "model" / "model.safetensors"
    assert (used / "model.safetensors").samefile(weights)
    assert knows_references or (folder / "model.safetensors").samefile(weights)
    assert not (tmp_path / "taken" / "model.safetensors").samefile(weights)


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
    folders = [downloads.folder_name(name) for name in names]
    assert len({folder.lower() for folder in folders}) == len(names)
    assert max(len(folder.encode()) for folder in folders) <= 64
    assert not {".", "..", "~"} & set(folders)


@pytest.mark.parametrize("name", ["电" * 200, "a#b", "100% a%20b", "-a b;c", "~", ".a.", "$(x) & {y}"])
def test_a_model_is_downloaded_by_every_name_that_the_configuration_takes(
    logged: tuple[str, str], tmp_path: Path, name: str
) -> None:
    import mlflow

    AlignConfig.model_validate({"registry": {"model_name": name}})
    register(*logged, name, "challenger")
    assert (downloads.local_model(f"models:/{name}@challenger", tmp_path) / "model.safetensors").exists()
    with connection.fluent():
        assert mlflow.transformers.load_model(f"models:/{name}/1").task == "text-generation"


def test_the_same_name_and_number_of_another_registry_is_another_copy(logged: tuple[str, str], tmp_path: Path) -> None:
    run, uri = logged
    paths = []
    for _ in range(2):
        register(run, uri, "recreated", "champion", key="k1")
        paths.append(downloads._local("models:/recreated@champion", tmp_path)[1])
        connection.client().delete_registered_model("recreated")
        time.sleep(0.01)
    assert paths[0] != paths[1]


def test_a_full_disk_while_a_model_is_fetched_is_the_store_s_error(
    logged: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(*logged, "large", "champion", key="k1")

    def full(*_: Any, dst_path: str, **__: Any) -> str:
        assert Path(dst_path).parent == tmp_path / downloads.folder_name("large")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", full)
    monkeypatch.setattr(downloads, "artifacts_here", lambda _: None)  # as on another machine's server
    with pytest.raises(StoreError, match="No space left on device"):
        downloads._local("models:/large@champion", tmp_path)
    assert list((tmp_path / downloads.folder_name("large")).iterdir()) == []


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
        downloads.resolve_model_uri(uri)
