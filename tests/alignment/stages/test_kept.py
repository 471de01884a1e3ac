"""The model that is kept between stages and shards, and placed anew."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock

import pytest

from alignment import device, models
from alignment.stages import kept
from alignment.stages.job import Job
from tests.alignment.chain import PROMPTS


@pytest.fixture
def job(chain, tmp_path):
    return Job(chain.config, {"base": chain.folders["base"]}, tmp_path, tmp_path, tmp_path)


def test_one_base_model_is_kept_between_shards(job):
    kept.forget_model()
    assert kept.base_model(job, "sampling.precision") is kept.base_model(job, "sampling.precision")


def test_the_base_model_that_was_kept_sets_its_threads_again(job, monkeypatch):
    """A reward model of another size may have been loaded in between."""
    placed: list[object] = []
    loaded = kept.base_model(job, "sampling.precision")
    monkeypatch.setattr(device, "place", placed.append)
    assert kept.base_model(job, "sampling.precision") is loaded
    assert placed == [loaded.model]


def test_a_base_model_of_another_precision_takes_its_place(job, chain, tmp_path):
    exact = kept.base_model(job, "sampling.precision")
    half = replace(job, config=chain.other(tmp_path, evaluation={"precision": "bf16"}).config)
    assert kept.base_model(half, "sampling.precision") is exact
    assert kept.base_model(half, "evaluation.precision") is not exact
    assert kept.base_model(job, "sampling.precision") is not exact


def test_a_reward_model_is_kept_between_shards_and_takes_the_base_model_s_place(job, chain):
    """So one model is in memory, whichever a stage reads."""
    base, folder = kept.base_model(job, "sampling.precision"), chain.folders["reward"] / "model"
    found = kept.reward_model(folder, "fp32", "reward.model train")
    assert kept.reward_model(folder, "fp32", "reward.model train") is found
    assert kept.base_model(job, "sampling.precision") is not base
    assert kept.reward_model(folder, "fp32", "reward.model train") is not found


def test_all_shards_of_scores_read_the_reward_model_once(chain, tmp_path, monkeypatch):
    kept.forget_model()
    load = Mock(side_effect=models.load_reward)
    monkeypatch.setattr(models, "load_reward", load)
    for first in range(0, PROMPTS, 3):
        chain.other(tmp_path).run("scores", f"part {first}", (first, first + 3))
    load.assert_called_once()


def test_shards_that_ask_at_once_get_one_model_that_is_read_once(job, monkeypatch):
    """transformers says of models that it reads at once that their weights lack some."""
    kept.forget_model()
    load = Mock(side_effect=models.load_base)
    monkeypatch.setattr(models, "load_base", load)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: kept.base_model(job, "sampling.precision"), range(8)))
    load.assert_called_once()
    assert len(set(map(id, found))) == 1
