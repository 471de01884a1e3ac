"""Rounds of retraining through the real flow: each starts from the champion, and all are measured to the first base."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config, merge
from alignment.errors import ModelError
from flows.align import AlignResult
from flows.retrain import retrain
from tasks.registry import downloads, marks, versions
from tests.flows.small import OPEN_GATES, SMALL
from tests.registered import register

NAME = "rounds"
COUNT = 24  # prompts a round; most texts are held out, and the others are three rounds and a rest
ROUNDS: dict[str, Any] = merge(
    SMALL,
    {
        "prompts": {"count": COUNT, "eval_fraction": 0.87},
        "dpo": {"learning_rate": 3e-3},
        "evaluation": {"judge": "grammar"},
        "gates": {
            **OPEN_GATES,
            "max_grammar_drop": 1,
            "max_anchor_kl_per_token": 100,
            "max_anchor_perplexity_ratio": 1_000,
        },
        "registry": {"model_name": NAME, "experiment": NAME},
    },
)


def config(**overrides: Any) -> AlignConfig:
    return build_config(merge(ROUNDS, overrides))


def start(wanted: AlignConfig, **options: Any) -> Any:
    return retrain(**{name: getattr(wanted, name) for name in AlignConfig.model_fields}, **options)


@dataclass(frozen=True)
class Story:
    """What happened: a first round, its promotion, a second round, one with tight bounds, one with nothing left."""

    first: AlignResult
    second: AlignResult
    tight: AlignResult
    skipped: Any


@pytest.fixture(scope="module")
def story(shared_home: Path, prefect_server: None) -> Story:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_HOME", str(shared_home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        first = start(config())
        versions.set_alias(NAME, "champion", "1")
        second = start(config())
        tight = start(config(gates={"max_anchor_kl_per_token": 1e-6}))
        skipped = start(config(validation={"min_distinct_prompts": COUNT}), return_state=True)
    return Story(first, second, tight, skipped)


@pytest.fixture
def client(at_home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{at_home / 'mlflow.db'}")


def tags(client: Any, run_id: str) -> dict[str, str]:
    return dict(client.get_run(run_id).data.tags)


def used(client: Any, result: AlignResult) -> set[str]:
    return set(Path(client.download_artifacts(result.run_id, "prompts/used.txt")).read_text().split())


def registered(client: Any) -> dict[str, Any]:
    return {item.version: item for item in client.search_model_versions(f"name = '{NAME}'")}


def test_without_a_champion_the_round_starts_from_the_configured_base(story: Story, client: Any) -> None:
    assert story.first.model is not None
    assert (story.first.model["version"], story.first.model["aliases"]) == ("1", ["challenger"])
    assert story.first.report.drift is None
    assert "plumbline.base" not in tags(client, story.first.run_id)
    assert len(used(client, story.first)) == COUNT


def test_the_next_round_starts_from_the_champion_and_is_judged_against_it(story: Story, client: Any) -> None:
    """Its base is the first round's aligned model: on the same held-out prompts it writes the same texts."""
    assert tags(client, story.second.run_id)["plumbline.base"] == f"models:/{NAME}/1"
    assert story.second.report.prompts == story.first.report.prompts
    for name in ("reward_mean", "reward_sd", "entropy", "length", "grammatical"):
        before, after = getattr(story.second.report.base, name), getattr(story.first.report.aligned, name)
        assert before == pytest.approx(after, abs=1e-5), name


def test_drift_is_measured_to_the_first_base_and_not_to_the_champion(story: Story, client: Any) -> None:
    """What the second round says of its base is what the first one said of its result."""
    first, drift = story.first.report, story.second.report.drift
    assert drift is not None
    assert drift.anchor_reward_mean == pytest.approx(first.base.reward_mean, abs=1e-5)
    assert drift.base_kl_per_token == pytest.approx(first.delta.kl_per_token, abs=1e-5)
    assert drift.base_perplexity_ratio == pytest.approx(first.delta.perplexity_ratio, abs=1e-5)
    assert drift.reward_gain == pytest.approx(
        story.second.report.aligned.reward_mean - first.base.reward_mean, abs=1e-5
    )
    assert drift.kl_per_token != pytest.approx(story.second.report.delta.kl_per_token, abs=1e-6)
    logged = client.get_run(story.second.run_id).data.metrics
    assert {name: logged[f"drift/{name}"] for name in drift.model_dump()} == pytest.approx(drift.model_dump())


def test_the_anchor_is_registered_once_and_is_no_candidate(story: Story, client: Any) -> None:
    anchors = [item for item in registered(client).values() if marks.read(item.tags).get("plumbline.kind") == "anchor"]
    (anchor,) = anchors
    assert client.get_model_version_by_alias(NAME, "anchor").version == anchor.version
    assert anchor.tags["verdict"] == "anchor"
    assert "plumbline.verdict" not in marks.read(anchor.tags)
    assert tags(client, story.second.run_id)["plumbline.anchor"] == f"models:/{NAME}/{anchor.version}"
    assert tags(client, story.tight.run_id)["plumbline.anchor"] == f"models:/{NAME}/{anchor.version}"
    assert story.second.model is not None
    assert story.second.model["version"] != str(anchor.version)
    assert story.second.model["aliases"] == ["challenger"]


def test_the_anchor_s_weights_are_the_first_base_s(story: Story, at_home: Path, tmp_path: Path) -> None:
    downloads.export_model(f"models:/{NAME}@anchor", tmp_path / "anchor")
    lineage = json.loads(_artifact(at_home, story.first.run_id, "lineage.json"))
    base = Path(lineage["base"]["path"]) / "model" / "model.safetensors"
    assert (tmp_path / "anchor" / "model.safetensors").read_bytes() == base.read_bytes()


def test_no_prompt_is_trained_on_twice(story: Story, client: Any) -> None:
    rounds = [used(client, result) for result in (story.first, story.second, story.tight)]
    assert [len(found) for found in rounds] == [COUNT] * 3
    assert len(set().union(*rounds)) == 3 * COUNT


def test_a_challenger_too_far_from_the_anchor_is_refused_and_registers_nothing(story: Story, client: Any) -> None:
    assert story.tight.judgement.verdict == "fail"
    assert [gate.name for gate in story.tight.judgement.gates if not gate.passed] == ["anchor_kl_per_token"]
    assert "from the anchor" in story.tight.judgement.sentence
    assert story.tight.model is None
    assert story.tight.run_id not in {item.run_id for item in registered(client).values()}
    assert story.second.model is not None
    challenger = client.get_model_version_by_alias(NAME, "challenger")
    assert str(challenger.version) == story.second.model["version"]


def test_without_new_prompts_the_round_is_skipped(story: Story, client: Any) -> None:
    assert story.skipped.name == "Skipped"
    assert story.skipped.is_completed()
    assert f"({3 * COUNT} were)" in story.skipped.message
    experiment = client.get_experiment_by_name(NAME)
    (run,) = client.search_runs([experiment.experiment_id], "tags.`plumbline.verdict` = 'skipped'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["plumbline.reason"] == story.skipped.message
    assert not any(item.path == "report.json" for item in client.list_artifacts(run.info.run_id))


def test_new_texts_go_on_from_the_champion_and_keep_the_anchor(story: Story, client: Any) -> None:
    """The configured base would be trained anew on them, and would be another."""
    before = registered(client)
    grown = start(config(data={"rows": 1_800}))
    assert tags(client, grown.run_id)["plumbline.base"] == f"models:/{NAME}/1"
    assert tags(client, grown.run_id)["plumbline.anchor"] == tags(client, story.second.run_id)["plumbline.anchor"]
    assert grown.report.drift is not None
    assert not used(client, grown) & set().union(*(used(client, r) for r in (story.first, story.second, story.tight)))
    anchors = [item for item in registered(client).values() if marks.read(item.tags).get("plumbline.kind") == "anchor"]
    assert len(anchors) == 1
    assert len(registered(client)) == len(before) + 1


def test_a_champion_whose_base_is_lost_is_told_with_the_way_out(story: Story, client: Any, at_home: Path) -> None:
    """No anchor was registered yet, the store was cleaned, and the configuration has moved on."""
    lineage = json.loads(_artifact(at_home, story.first.run_id, "lineage.json"))
    base = Path(lineage["base"]["path"])
    uri = tags(client, story.first.run_id)["plumbline.model_uri"]
    register(story.first.run_id, uri, "lost", "champion", key="k")
    base.rename(base.with_name("away"))
    try:
        with pytest.raises(ModelError, match=r"^models:/lost: the base of version 1 [^\n]* alias `anchor`$"):
            start(config(registry={"model_name": "lost"}, base={"steps": 2}))
    finally:
        base.with_name("away").rename(base)
    kinds = [marks.read(item.tags).get("plumbline.kind") for item in client.search_model_versions("name = 'lost'")]
    assert kinds == [None]


def _artifact(home: Path, run_id: str, name: str) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    return Path(client.download_artifacts(run_id, name)).read_text(encoding="utf-8")
