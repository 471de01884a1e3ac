"""What the stages ask of a model: one base is kept between shards, and placed anew."""

from alignment import inference, models


def test_one_base_model_is_kept_between_shards(chain):
    folder = chain.folders["base"] / "model"
    inference.forget_base()
    assert inference.base_model(folder) is inference.base_model(folder)


def test_the_base_model_that_was_kept_sets_its_threads_again(chain, monkeypatch):
    """A reward model of another size may have been loaded in between."""
    placed: list[object] = []
    loaded = inference.base_model(chain.folders["base"] / "model")
    monkeypatch.setattr(models, "place", placed.append)
    assert inference.base_model(chain.folders["base"] / "model") is loaded
    assert placed == [loaded.model]
