"""Where a model computes: on its device, with the threads that its size is worth; and how exactly."""

import logging

import pytest
import torch

from alignment import device


@pytest.mark.parametrize(("parameters", "expected"), [(999_999, 1), (1_000_000, 3)])
def test_a_tiny_model_gets_one_thread_and_a_larger_one_those_at_the_start(monkeypatch, parameters, expected):
    monkeypatch.setattr(device, "_threads_at_start", lambda: 3)
    try:
        placed = device.place(torch.nn.Linear(parameters, 1, bias=False))
        assert torch.get_num_threads() == expected
        assert placed.weight.device.type == device.device().type
    finally:
        torch.set_num_threads(1)


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


class TestProducts:
    """What a GPU may round to TF32; nothing of it needs one."""

    def test_they_are_exact_once_a_model_is_placed_whatever_was_set(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = True
        device.place(torch.nn.Linear(1, 1))
        assert allowed() == (False, False)

    def test_a_model_rounds_its_own_and_no_others(self) -> None:
        one, other, seen = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), []
        device.round_products(device.place(one))
        for model in (one, other):
            model.register_forward_pre_hook(lambda *_: seen.append(allowed()))
            model(torch.ones(1))
        assert seen == [(True, True), (False, False)]
        assert allowed() == (False, False)
        assert [device.is_exact(model) for model in (one, other)] == [False, True]
        assert not device.is_exact(other.bfloat16())

    def test_also_where_its_forward_fails(self) -> None:
        model = torch.nn.Linear(1, 1)
        device.round_products(device.place(model))
        with pytest.raises(RuntimeError):
            model(torch.ones(2))
        assert allowed() == (False, False)

    def test_for_a_while(self) -> None:
        with device.products(rounded=True):
            assert allowed() == (True, True)
            with device.products(rounded=False):
                assert allowed() == (False, False)
            assert allowed() == (True, True)
        assert allowed() == (False, False)


def test_what_needs_no_accelerator_leaves_it_to_others(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with device.on_cpu():
        assert device.device().type == "cpu"
    assert device.device().type == "cuda"


@pytest.mark.parametrize(
    ("instructions", "warned"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, True),
        ({"avx512_bf16": True, "amx_bf16": False}, False),
        ({"avx512_bf16": False, "amx_bf16": True}, False),
    ],
)
def test_bf16_is_warned_of_once_where_the_processor_lacks_it(monkeypatch, caplog, instructions, warned):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    device.warn_of_bf16.cache_clear()
    with caplog.at_level(logging.WARNING):
        device.warn_of_bf16("dpo.precision")
        device.warn_of_bf16("dpo.precision")
    device.warn_of_bf16.cache_clear()
    assert caplog.text.count("dpo.precision: bf16 takes 4 to 7 times as long as fp32") == warned
