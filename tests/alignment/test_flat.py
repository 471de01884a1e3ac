"""Flat layouts against padded rows and plain passes of one sequence: log-probs, gradients, and who may lie flat."""

import logging
import random
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment import flat
from alignment.config import build_config
from alignment.layout import Layout, lay_flat, lay_padded
from alignment.logprobs import logprobs, score_completions, why_padded
from alignment.models import Loaded
from alignment.selfcheck import plain_logprob
from alignment.training.adapter import attach
from tests.alignment.architectures import EOS, PAD, Spelling, build, tokenizer

TOLERANCE = 1e-5
"""Of gradients, relative to the largest of a weight's; in fp32."""

SERVED: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_neox": {},
    "opt": {},
    "llama": {},
    "qwen2": {},
    "mistral": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8},
    "cohere2": {"sliding_window": 8},
}
"""Absolute and rotary positions, two heads that share keys, windows shorter than the texts, and a head that scales."""

draw = random.Random(0)
PROMPTS = [[draw.randrange(4, 64) for _ in range(draw.randint(1, 9))] for _ in range(3)] * 2
COMPLETIONS = [[draw.randrange(4, 64) for _ in range(draw.randint(2, 16))] for _ in range(6)]
WEIGHTS = torch.tensor([1.0, -0.5, 2.0, -1.0, 0.3, 0.7])
"""Of the sequences, so that no gradient is another's."""


def gradients(model: Any, layout: Layout) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The log-probs of the sequences, and the gradient of a mixture of them for every weight that has one."""
    model.zero_grad()
    with flat.attention(model) if layout.is_flat else nullcontext():
        found, _ = logprobs(model, layout)
        (found * WEIGHTS).sum().backward()
    return found.detach(), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """To 1e-5 of the largest, or of 1 where a weight's gradient is rounding alone, as that of the keys' biases."""
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        atol = TOLERANCE * max(1.0, float(expected[name].abs().max()))
        torch.testing.assert_close(gradient, expected[name], atol=atol, rtol=0, msg=partial("{}: {}".format, name))


@pytest.mark.parametrize("kind", SERVED)
def test_flat_is_padded_is_one_by_one(kind: str) -> None:
    model = build(kind, **SERVED[kind])
    assert why_padded(model, PROMPTS, COMPLETIONS) == ""
    found, flat_gradients = gradients(model, lay_flat(PROMPTS, COMPLETIONS))
    padded, padded_gradients = gradients(model, lay_padded(PROMPTS, COMPLETIONS, PAD))
    alone = [plain_logprob(model, *each) for each in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert found.tolist() == pytest.approx(alone, abs=5e-5)
    assert padded.tolist() == pytest.approx(alone, abs=5e-5)
    assert_same(flat_gradients, padded_gradients)


def test_a_window_that_is_shorter_than_the_texts_is_heeded() -> None:
    """Else the case above would say nothing: without it, the log-probs are others."""
    windowed, whole = build("mistral", sliding_window=8), build("mistral", sliding_window=None)
    layout = lay_flat(PROMPTS, COMPLETIONS)
    assert (gradients(windowed, layout)[0] - gradients(whole, layout)[0]).abs().max() > 0.1


def test_the_order_of_the_sequences_does_not_matter() -> None:
    model = build("llama")
    forwards = gradients(model, lay_flat(PROMPTS, COMPLETIONS))
    backwards = lay_flat(PROMPTS[::-1], COMPLETIONS[::-1])
    model.zero_grad()
    with flat.attention(model):
        found, _ = logprobs(model, backwards)
        (found * WEIGHTS.flip(0)).sum().backward()
    assert_same({name: weight.grad for name, weight in model.named_parameters()}, forwards[1])


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_layer_computes_again_with_its_own_rows(reentrant: bool) -> None:
    """Also if another batch has gone through the model before the backward pass."""
    model = build("llama")
    layout = lay_flat(PROMPTS, COMPLETIONS)
    expected = gradients(model, layout)[1]
    model.train()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    model.zero_grad()
    with flat.attention(model):
        found, _ = logprobs(model, layout)
        logprobs(model, lay_flat([[5]], [[6, 7]]))
        (found * WEIGHTS).sum().backward()
    assert_same({name: weight.grad for name, weight in model.named_parameters()}, expected)


def test_a_model_with_an_adapter_lies_flat() -> None:
    config = build_config({"dpo": {"adapter": "lora"}})
    model = attach(Loaded(build("llama"), tokenizer(Spelling()), "base.model x"), config.dpo, seed=0).model
    assert why_padded(model, PROMPTS, COMPLETIONS) == ""
    found, of_flat = gradients(model, lay_flat(PROMPTS, COMPLETIONS))
    padded, of_padded = gradients(model, lay_padded(PROMPTS, COMPLETIONS, PAD))
    torch.testing.assert_close(found, padded, atol=5e-5, rtol=0)
    assert of_flat
    assert all("lora" in name for name in of_flat)
    assert_same(of_flat, of_padded)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_the_models_own_attention_is_back_afterwards_and_is_what_is_saved(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    own = model.config._attn_implementation
    with suppress(KeyError), flat.attention(model):
        assert model.config._attn_implementation == flat.NAME
        model.save_pretrained(tmp_path)
        raise KeyError
    assert model.config._attn_implementation == own
    assert flat.NAME not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bloom", "its attention knows no other layout"),  # ALiBi
        ("gemma2", "flat, it cannot be run (NotImplementedError: "),  # caps its attention
        ("gpt_oss", "flat, it cannot be run (NotImplementedError: "),  # sinks
        ("lfm2", "flat, they would have other log-probs"),  # a convolution over neighbours
        ("jamba", "flat, they would have other log-probs"),  # a recurrent state
    ],
)
def test_who_has_to_be_padded_is_and_says_why(kind: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    model = build(kind)
    with caplog.at_level(logging.INFO, "alignment"):
        found = score_completions(model, PROMPTS, COMPLETIONS, pad_id=PAD, name="base.model x")
        score_completions(model, PROMPTS, COMPLETIONS, pad_id=PAD, name="base.model x")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "alignment.logprobs"]
    assert line.startswith(f"base.model x: texts lie in padded rows: {reason}")
    alone = [plain_logprob(model, *each) for each in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert found.tolist() == pytest.approx(alone, abs=1e-4)


def test_who_lies_flat_says_so_once(tiny_gpt2: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "alignment"):
        model = tiny_gpt2(0)
        for _ in range(2):
            score_completions(model, [[5], [6, 7]], [[8], [9, EOS]], pad_id=PAD, name="base.model x")
    lines = [record.getMessage() for record in caplog.records if record.name == "alignment.logprobs"]
    assert lines == ["base.model x: texts lie flat, without padding"]


def test_attention_without_rows_is_refused() -> None:
    """A model that does not hand its arguments on would attend to all that lies before."""
    model = build("gpt2")
    with flat.attention(model), pytest.raises(NotImplementedError):
        model(input_ids=torch.tensor([[5, 6]]))
