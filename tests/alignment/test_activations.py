"""GELU in one kernel against the spelt-out one that it stands for, and the model as it was afterwards."""

from contextlib import suppress

import torch
from transformers.activations import FastGELUActivation, NewGELUActivation

from alignment.activations import SPELT_OUT, one_kernel
from tests.alignment.architectures import build


def test_values_and_gradients_are_those_of_the_spelt_out_activation() -> None:
    for kind in (NewGELUActivation, FastGELUActivation):
        model = torch.nn.Sequential(kind())
        values = torch.linspace(-6, 6, 1001, dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad((own := model(values)).sum(), values)
        with one_kernel(model):
            (found,) = torch.autograd.grad((one := model(values)).sum(), values)
        torch.testing.assert_close(one, own, atol=1e-7, rtol=0)
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)


def test_a_models_own_activations_are_back_afterwards() -> None:
    model = build("gpt2")
    own = {name: part for name, part in model.named_modules() if type(part) in SPELT_OUT}
    assert own
    with suppress(KeyError), one_kernel(model):
        assert not [part for part in model.modules() if type(part) in SPELT_OUT]
        raise KeyError
    assert {name: part for name, part in model.named_modules() if type(part) in SPELT_OUT} == own
    assert list(model.state_dict()) == list(build("gpt2").state_dict())


def test_a_model_with_another_activation_is_left_alone() -> None:
    model = build("llama")
    before = list(model.modules())
    with one_kernel(model):
        assert list(model.modules()) == before
