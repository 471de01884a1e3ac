"""A model that is trained by a stand-in: its weights are lent to it, and come back trained."""

import torch

from alignment.models import Loaded
from alignment.training.sharding import standing_in


def test_the_weights_are_there_once_and_come_back_trained(base: Loaded) -> None:
    """Tied weights stay tied, and buffers, which are in no state, stay what they are."""
    model, ids = base.model, torch.tensor([[1, 2, 3]])
    places = {weight.data_ptr() for weight in model.parameters()}
    with standing_in(model, "fsdp") as lent:
        assert {weight.device.type for weight in model.parameters()} == {"meta"}
        assert {weight.data_ptr() for weight in lent.parameters()} == places
        with torch.no_grad():
            for weight in lent.parameters():
                weight.mul_(1.01)
            expected = lent(ids).logits
    assert torch.equal(model(ids).logits, expected)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_model_that_is_not_sharded_is_trained_itself(base: Loaded) -> None:
    with standing_in(base.model, "none") as trained:
        assert trained is base.model
