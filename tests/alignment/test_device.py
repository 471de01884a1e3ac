"""Where a model computes: on its device, with the threads that its size is worth."""

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
