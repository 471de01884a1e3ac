"""Weights in column order: the same products, for the time of the work, and the model's own afterwards."""

import pytest
import torch

from alignment.batching import COPY_TOKENS
from alignment.sampling.weights import column_order
from tests.alignment.architectures import build


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_logits_are_the_same_and_the_models_own_weights_come_back(kind: str) -> None:
    """Also those that the output layer shares with the embeddings."""
    model = build(kind)
    ids = torch.tensor([[1, 5, 9], [4, 4, 7]])
    before = dict(model.named_parameters(remove_duplicate=False))
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        with column_order(model, COPY_TOKENS):
            assert model.get_output_embeddings().weight.stride(0) == 1
            assert model.get_input_embeddings().weight.is_contiguous()
            found = model(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert before.keys() == after.keys()
    assert all(after[name] is weight for name, weight in before.items())


def test_they_come_back_after_a_failure() -> None:
    model = build("llama")
    own = model.get_output_embeddings().weight
    with pytest.raises(RuntimeError), column_order(model, COPY_TOKENS):
        raise RuntimeError
    assert model.get_output_embeddings().weight is own


def test_for_few_tokens_nothing_is_copied() -> None:
    model = build("llama")
    own = model.get_output_embeddings().weight
    with column_order(model, COPY_TOKENS - 1):
        assert model.get_output_embeddings().weight is own
