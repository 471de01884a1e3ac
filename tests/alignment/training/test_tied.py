"""A tied embedding's gradient is the same, whichever of its two uses comes first, and however often."""

from typing import Any

import pytest
import torch

from alignment.head import logprobs_at
from alignment.training.tied import added_in_place
from tests.alignment.architectures import PAD, build

IDS = torch.tensor([[5, 6, 7, 5, PAD], [8, 9, 8, 6, 6]])
POSITIONS, TARGETS = torch.tensor([1, 2, 5, 6]), torch.tensor([7, 5, 9, 8])


def gradients(model: Any, *, passes: int = 1) -> dict[str, Any]:
    model.zero_grad()
    for _ in range(passes):
        logprobs_at(model, POSITIONS, TARGETS, input_ids=IDS)[0].sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "opt", "ctrl"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("passes", [1, 2])
def test_gradients_are_those_of_autograd(kind: str, tied: bool, passes: int) -> None:
    """Llama's embedding knows a padding token, whose row has no gradient; Gemma 2 caps its logits, and scales."""
    model = build(kind, tie_word_embeddings=tied)
    expected = gradients(model, passes=passes)
    with added_in_place(model):
        found = gradients(model, passes=passes)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5, msg=name)


def test_what_is_frozen_has_none() -> None:
    model = build("gpt2")
    model.get_input_embeddings().weight.requires_grad_(False)
    with added_in_place(model):
        assert "transformer.wte.weight" not in gradients(model)


def test_autograd_sees_no_second_use_of_the_weight_meanwhile() -> None:
    """Which is what would make a second [V, E] of it."""
    model = build("gpt2")
    weight, hidden = model.get_input_embeddings().weight, torch.tensor([[5, 6]])

    def uses() -> bool:
        used = model.transformer.wte(hidden).sum() + 0 * weight.sum()
        return bool(torch.autograd.grad(used, weight)[0].any())

    assert uses()
    with added_in_place(model):
        assert not uses()
    assert uses()


def test_a_classifier_stays_as_it_is() -> None:
    model = build("llama", task="SequenceClassification", num_labels=2)
    with added_in_place(model):
        model(input_ids=IDS).logits.sum().backward()
    assert model.get_input_embeddings().weight.grad.any()
