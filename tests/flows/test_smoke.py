"""The smoke flow on a tiny registered model: its version says afterwards how it fared."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.config import AlignConfig
from alignment.errors import ModelError, PromotionError
from flows.align import connect
from flows.smoke import smoke
from tasks.registry import connection, models, records, versions
from tests import registered
from tests.registered import SAMPLES, make_version, report

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")


@pytest.fixture(autouse=True)
def place(at_home: Path) -> Iterator[None]:
    before = connection._place
    connect()
    yield
    connection._place = before


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A reward model that gives every text the same score, 0.25."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    folder = tmp_path_factory.mktemp("reward")
    size = {"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 64}
    model = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=len(tiny_tokenizer), **size))
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.constant_(model.classifier.bias, 0.25)
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def register(
    at_home: Path, reward: Path, tmp_path: Path, tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any
) -> Callable[..., str]:
    """Register a tiny champion whose record says this mean reward, or nothing; returns its version."""
    tiny_gpt2(vocab_size=len(tiny_tokenizer)).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    lost = {"data": {"path": str(tmp_path / "gone.parquet")}, "base": {"model": str(tmp_path / "gone")}}
    config = AlignConfig.model_validate(lost | {"reward": {"model": str(reward), "positive_class": "1"}})

    def make(name: str, mean: float | None) -> str:
        version = make_version(name, record=False)
        uri = models.log_model(version.run_id, tmp_path / "model", config, "a film")
        if mean is not None:
            found = report()
            aligned = found.aligned.model_copy(update={"reward_mean": mean})
            records.log_text(version.run_id, "config.yaml", yaml.safe_dump(config.model_dump(mode="json")))
            records.log_text(
                version.run_id, records.REPORT, found.model_copy(update={"aligned": aligned}).model_dump_json()
            )
            records.log_samples_table(version.run_id, SAMPLES)
        return registered.register(version.run_id, uri, name, "champion", key=f"smoke-{name}").version

    return make


def test_a_champion_that_is_rewarded_as_recorded_passes(register: Callable[..., str]) -> None:
    version = register("as-recorded", 0.3)
    result = smoke("as-recorded")
    assert result.verdict == "passed", result.sentence
    tags = versions.get_version("as-recorded", version).tags
    assert (tags["smoke.verdict"], tags["smoke.reward"]) == ("passed", "0.2500")
    assert tags["smoke.time"].endswith("+00:00")

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        shown = {item.key: item for item in client.read_latest_artifacts()}
    assert result.sentence in str(shown["smoke"].data)
    assert "film 0" in str(shown["smoke"].data)


def test_a_champion_that_is_not_fails_the_flow_with_one_line(register: Callable[..., str]) -> None:
    version = register("unlike", 1.2)
    with pytest.raises(PromotionError, match=r"mean reward \+0\.25 of 20 texts is not the recorded \+1\.20") as raised:
        smoke("unlike")
    assert "\n" not in str(raised.value)
    assert versions.get_version("unlike", version).tags["smoke.verdict"] == "failed"


def test_a_champion_without_a_record_writes_and_is_not_comparable(register: Callable[..., str]) -> None:
    version = register("unknown", None)
    result = smoke("unknown")
    assert result.verdict == "not comparable"
    assert len(result.texts) == 128
    assert versions.get_version("unknown", version).tags["smoke.verdict"] == "not comparable"


def test_a_model_without_a_champion_is_bad_input() -> None:
    with pytest.raises(ModelError, match="models:/nobody@champion: no version has this alias"):
        smoke("nobody")
