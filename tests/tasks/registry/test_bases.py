"""An adapter that is registered apart from its base: what MLflow keeps of it, what it is in use, and its pin."""

from pathlib import Path
from typing import Any

import pytest
import torch

from alignment import adapters, models
from alignment.config import build_config
from alignment.device import device
from alignment.errors import ConfigError, ModelError
from tasks.home import home
from tasks.registry import bases, connection, downloads
from tasks.registry import models as logged_models
from tasks.registry.bases import Apart
from tests.alignment.test_adapters import lora, peft_folder
from tests.registered import register
from tests.tasks.registry.judged import CONFIG

pytestmark = [
    pytest.mark.usefixtures("local"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),  # of peft, to itself
]


@pytest.fixture
def apart(folder: Path, tmp_path: Path) -> Apart:
    """A tiny base, and an adapter on its attention."""
    peft_folder(folder, tmp_path / "adapter", lora(target_modules=["c_attn"], fan_in_fan_out=True))
    return Apart(tmp_path / "adapter", folder)


def test_an_adapter_and_its_base_are_one_model_where_they_are_used(
    apart: Apart, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    uri = logged_models.log_model(run_id, tmp_path / "unread", CONFIG, "the film", apart=apart)
    register(run_id, uri, "apart", "champion", key="k1")
    root = downloads.artifacts_here(uri)
    assert root is not None
    weights = list(root.rglob("*.safetensors"))
    assert [file.name for file in weights] == ["adapter_model.safetensors"]
    assert {file.name for file in (root / "peft").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert "`peft/` the adapter without its base" in (root / "model_card.md").read_text()
    assert "library_name: peft" in (root / "model_card_data.yaml").read_text()
    (kept,) = (home() / "bases").iterdir()
    logged_models.require_base(uri)

    used = models.load_base(downloads.local_model("models:/apart@champion", tmp_path / "used"))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        expected = adapters.standing(apart.base, apart.adapter)(ids).logits
        assert torch.allclose(used.model(ids).logits, expected, atol=1e-5)
        assert not torch.allclose(models.load_base(apart.base).model(ids).logits, expected, atol=1e-3)
    with connection.fluent():
        served = mlflow.pyfunc.load_model(uri)
    (text,) = served.predict(["the film"], params={"max_new_tokens": 4, "do_sample": False})
    assert text.startswith("the film")
    assert len(text) > len("the film")

    with (kept / "model.safetensors").open("rb") as stream:
        own = stream.read()
    (kept / "model.safetensors").unlink()  # it is a link to the store's
    (kept / "model.safetensors").write_bytes(own[:-4] + b"\0\0\0\1")
    for use in (
        lambda: logged_models.require_base(uri),
        lambda: downloads.export_model(uri, tmp_path / "out"),
        lambda: downloads.local_model("models:/apart@champion", tmp_path / "used"),
    ):
        with pytest.raises(ModelError, match=r"holds another one: put the right one back, or register it again"):
            use()
    kept.rename(kept.with_name("elsewhere"))
    for use in (
        lambda: logged_models.require_base(uri),
        lambda: downloads.local_model("models:/apart@champion", tmp_path / "used"),
    ):
        with pytest.raises(ModelError, match=r"its base is not at .*registry\.adapter = merged"):
            use()


def test_the_two_are_merged_without_a_gpu(
    apart: Apart, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever needs the model has no slot for one; without `on_cpu` this would ask for one that is not there."""
    uri = logged_models.log_model(run_id, tmp_path / "unread", CONFIG, "the film", apart=apart)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device().type == "cuda"
    assert (downloads.local_model(uri, tmp_path / "used") / "model.safetensors").is_file()


def test_an_adapter_stands_on_its_base_without_a_gpu(apart: Apart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert adapters.standing(apart.base, apart.adapter).device.type == "cpu"


def test_a_base_that_moved_is_found_by_a_link_where_it_was(apart: Apart, run_id: str, tmp_path: Path) -> None:
    uri = logged_models.log_model(run_id, tmp_path / "unread", CONFIG, "the film", apart=apart)
    (kept,) = (home() / "bases").iterdir()
    kept.rename(tmp_path / "moved")
    kept.symlink_to(tmp_path / "moved")
    logged_models.require_base(uri)
    downloads.export_model(uri, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not list((tmp_path / "out").glob(".*")), "the note of a copy that is used again"


def test_a_base_is_kept_once_for_all_adapters_over_it(folder: Path) -> None:
    first = bases.keep(folder, CONFIG)
    assert bases.keep(folder, CONFIG) == first
    other = CONFIG.model_copy(update={"sampling": CONFIG.sampling.model_copy(update={"temperature": 0.5})})
    assert bases.keep(folder, other) != first


def test_without_an_adapter_there_is_nothing_to_keep_apart() -> None:
    with pytest.raises(ConfigError, match=r"dpo\.adapter = none trains none: set dpo\.adapter to lora"):
        build_config({"registry": {"adapter": "separate"}})


@pytest.mark.parametrize("metadata", [None, {}, {"task": "llm/v1/chat"}])
def test_other_models_pin_no_base(metadata: dict[str, Any] | None) -> None:
    assert bases.pinned("models:/m-1", metadata) is None
