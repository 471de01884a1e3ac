"""The base model that is kept between stages and shards, and placed anew."""

import pytest

from alignment import device
from alignment.stages import kept
from alignment.stages.job import Job


@pytest.fixture
def job(chain, tmp_path):
    return Job(chain.config, {"base": chain.folders["base"]}, tmp_path, tmp_path, tmp_path)


def test_one_base_model_is_kept_between_shards(job):
    kept.forget_base()
    assert kept.base_model(job) is kept.base_model(job)


def test_the_base_model_that_was_kept_sets_its_threads_again(job, monkeypatch):
    """A reward model of another size may have been loaded in between."""
    placed: list[object] = []
    loaded = kept.base_model(job)
    monkeypatch.setattr(device, "place", placed.append)
    assert kept.base_model(job) is loaded
    assert placed == [loaded.model]


def test_a_base_model_of_another_precision_takes_its_place(job):
    exact = kept.base_model(job)
    assert kept.base_model(job, "bf16") is not exact
    assert kept.base_model(job) is not exact
