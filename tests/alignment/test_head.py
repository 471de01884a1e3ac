"""The output layer: log-probs without logits against the plain computation, and which models have a plain layer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from alignment import batching, head
from alignment.head import hidden_states, is_plain, logits_at, logprobs_at, token_logprobs
from tests.alignment.architectures import build

TOKENS, WIDTH, VOCABULARY = 6, 5, 11
CAPPED: dict[str, dict[str, Any]] = {
    "gemma2": {"final_logit_softcapping": 30.0},
    "cohere": {"logit_scale": 0.5},
    "granite": {"logits_scaling": 2.0},
    "recurrent_gemma": {"logits_soft_cap": 30.0},
}


@pytest.fixture(params=["kept", "computed again"])
def _chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4, 4 and 3 of the vocabulary's 11 tokens."""
    monkeypatch.setitem(head.CHUNK, "cpu", 4 * TOKENS)
    monkeypatch.setitem(batching.KEPT, "cpu", TOKENS * VOCABULARY if request.param == "kept" else 0)


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight, bias in fp64, and targets of which some repeat, one in each chunk."""
    draws = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(*shape, generator=draws, dtype=torch.float64, requires_grad=True)
        for shape in ((TOKENS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    )
    return hidden, weight, bias, torch.tensor([0, 5, 10, 5, 3, 0])


def plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    logprobs = functional.linear(hidden, weight, bias).log_softmax(-1)
    return logprobs.gather(-1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


@pytest.mark.usefixtures("_chunked")
class TestTokenLogprobs:
    @pytest.mark.parametrize("with_bias", [True, False])
    def test_values_and_gradients_are_those_of_log_softmax(self, drawn: Any, with_bias: bool) -> None:
        hidden, weight, bias, targets = drawn
        leaves = [hidden, weight, *([bias] if with_bias else [])]
        given = (hidden, weight, bias if with_bias else None, targets)
        pull = torch.linspace(-1, 2, TOKENS, dtype=torch.float64)
        found, entropies = token_logprobs(*given, entropy=True)
        expected, expected_entropies = plain(*given)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(entropies, expected_entropies)
        for one, two in zip(
            torch.autograd.grad(found, leaves, pull), torch.autograd.grad(expected, leaves, pull), strict=True
        ):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)

    def test_gradients_by_finite_differences(self, drawn: Any) -> None:
        *leaves, targets = drawn
        assert torch.autograd.gradcheck(lambda h, w, b: token_logprobs(h, w, b, targets)[0], leaves, nondet_tol=1e-12)

    def test_a_second_backward_pass_gives_the_same(self, drawn: Any) -> None:
        """The first one uses up what was kept."""
        leaves = drawn[:-1]
        total = token_logprobs(*drawn)[0].sum()
        for one, two in zip(
            torch.autograd.grad(total, leaves, retain_graph=True), torch.autograd.grad(total, leaves), strict=True
        ):
            torch.testing.assert_close(one, two)

    def test_a_frozen_layer_has_no_gradient(self, drawn: Any) -> None:
        hidden, weight, _, targets = drawn
        token_logprobs(hidden, weight.detach(), None, targets)[0].sum().backward()
        assert hidden.grad is not None
        assert weight.grad is None

    def test_a_frozen_body_has_none(self, drawn: Any) -> None:
        hidden, weight, _, targets = drawn
        token_logprobs(hidden.detach(), weight, None, targets)[0].sum().backward()
        expected = torch.autograd.grad(plain(hidden, weight, None, targets)[0].sum(), weight)[0]
        torch.testing.assert_close(weight.grad, expected)

    def test_a_layer_that_is_tied_to_the_embedding_adds_both_gradients(self, drawn: Any) -> None:
        _, weight, _, targets = drawn
        ids = targets.flip(0)
        gradients = [
            torch.autograd.grad(logprobs(functional.embedding(ids, weight), weight, None, targets)[0].sum(), weight)[0]
            for logprobs in (token_logprobs, plain)
        ]
        torch.testing.assert_close(*gradients)

    def test_fp32_is_off_by_rounding_alone(self, drawn: Any) -> None:
        *leaves, targets = drawn
        single = hidden, weight, bias = [leaf.detach().float().requires_grad_() for leaf in leaves]
        found, expected = token_logprobs(hidden, weight, bias, targets)[0], plain(*drawn)[0]
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
        pairs = zip(torch.autograd.grad(found.sum(), single), torch.autograd.grad(expected.sum(), leaves), strict=True)
        for one, two in pairs:
            torch.testing.assert_close(one.double(), two, rtol=1e-6, atol=1e-6)

    def test_logits_far_apart_neither_overflow_nor_lose_the_entropy(self) -> None:
        """p = 1 for one token: log p = 0 there, and −10,000 for another; no entropy."""
        hidden, weight = torch.ones(2, 1), torch.zeros(VOCABULARY, 1)
        weight[7] = 1e4
        found, entropies = token_logprobs(hidden, weight, None, torch.tensor([7, 0]), entropy=True)
        assert found.tolist() == [0.0, -1e4]
        assert entropies is not None
        assert entropies.tolist() == [0.0, 0.0]

    def test_under_autocast_products_are_rounded_and_log_probs_are_not(self, drawn: Any) -> None:
        """The product in bf16, as nn.Linear computes it there, and the softmax of it in fp32."""
        *leaves, targets = drawn
        hidden, weight, _ = (leaf.detach().float().requires_grad_() for leaf in leaves)
        with torch.autocast("cpu", torch.bfloat16):
            found, _ = token_logprobs(hidden, weight, None, targets)
        rounded = functional.linear(hidden.bfloat16(), weight.bfloat16()).float()
        expected = rounded.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        pairs = zip(
            torch.autograd.grad(found.sum(), (hidden, weight)),
            torch.autograd.grad(expected.sum(), (hidden, weight)),
            strict=True,
        )
        for one, two in pairs:
            assert one.dtype == torch.float32
            torch.testing.assert_close(one, two, rtol=0.02, atol=0.02)

    def test_a_target_outside_the_vocabulary_is_told(self, drawn: Any) -> None:
        hidden, weight, _, _ = drawn
        found, _ = token_logprobs(hidden, weight, None, torch.tensor([0, -100, VOCABULARY, 1, 1, 1]))
        assert found.isnan().tolist() == [False, True, True, False, False, False]

    def test_no_tokens(self, drawn: Any) -> None:
        hidden, weight, bias, targets = drawn
        found, _ = token_logprobs(hidden[:0], weight, bias, targets[:0])
        assert found.shape == (0,)
        found.sum().backward()
        assert weight.grad.abs().sum() == 0


class TestModels:
    """One sequence of four tokens and one of two beside padding; three tokens are scored."""

    IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    POSITIONS, TARGETS = torch.tensor([1, 2, 4]), torch.tensor([7, 8, 10])

    def expected(self, model: Any) -> Tensor:
        found: Tensor = model(input_ids=self.IDS, use_cache=False).logits.flatten(0, 1)[self.POSITIONS]
        return found

    @pytest.mark.parametrize("kind", ["gpt2", "llama", "gptj", "phi", "opt", "gpt_neox", "gemma3_text", "bert", "mpt"])
    def test_most_have_a_plain_layer(self, kind: str) -> None:
        """GPT-J's and Phi's have a bias, and one bert puts layers between its last state and the output."""
        model = build(kind)
        assert is_plain(model)
        hidden = hidden_states(model, input_ids=self.IDS).flatten(0, 1)[self.POSITIONS]
        layer = model.get_output_embeddings()
        torch.testing.assert_close(functional.linear(hidden, layer.weight, layer.bias), self.expected(model))

    @pytest.mark.parametrize("kind", ["llama", *CAPPED])
    def test_log_probs_and_entropy_are_those_of_the_model(self, kind: str) -> None:
        """Also where it caps or scales its logits, however far these are from the cap."""
        model = build(kind, **CAPPED.get(kind, {}))
        assert is_plain(model) == (kind not in CAPPED)
        found, entropies = logprobs_at(model, self.POSITIONS, self.TARGETS, entropy=True, input_ids=self.IDS)
        logprobs = self.expected(model).log_softmax(-1)
        torch.testing.assert_close(found, logprobs.gather(-1, self.TARGETS[:, None])[:, 0])
        torch.testing.assert_close(entropies, -(logprobs.exp() * logprobs).sum(-1))
        torch.testing.assert_close(logits_at(model, self.POSITIONS, input_ids=self.IDS), self.expected(model))
        gradients = [
            torch.autograd.grad(value.sum(), list(model.parameters()), allow_unused=True)
            for value in (found, logprobs.gather(-1, self.TARGETS[:, None]))
        ]
        for one, two in zip(*gradients, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kind", CAPPED)
    def test_a_cap_is_found_though_the_logits_are_far_below_it(self, kind: str) -> None:
        model = build(kind, **CAPPED[kind])
        with torch.no_grad():
            for weight in model.parameters():
                weight *= 0.01
        assert not is_plain(model)

    def test_it_is_tried_once(self, tiny_gpt2: Callable[..., Any]) -> None:
        model = tiny_gpt2(0)
        assert is_plain(model)
        model.forward = None
        assert is_plain(model)

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's, to transformers
    def test_an_adapter_on_the_layer_is_computed_by_the_model(self) -> None:
        """Found though it adds nothing before it is trained; one elsewhere leaves the layer plain."""
        from peft import LoraConfig, get_peft_model

        plain_layer = get_peft_model(build("llama"), LoraConfig(target_modules=["q_proj"]))
        assert is_plain(plain_layer)
        model = get_peft_model(build("llama"), LoraConfig(target_modules=["lm_head"]))
        assert not is_plain(model)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_()
        for adapted in (plain_layer, model):
            found, _ = logprobs_at(adapted, self.POSITIONS, self.TARGETS, input_ids=self.IDS)
            logprobs = self.expected(adapted).log_softmax(-1)
            torch.testing.assert_close(found, logprobs.gather(-1, self.TARGETS[:, None])[:, 0])

    def test_one_row_without_padding(self, tiny_gpt2: Callable[..., Any]) -> None:
        """Sequences one after the other: positions count through them."""
        flat = self.IDS.flatten()[None]
        given: dict[str, Any] = {"input_ids": flat, "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])}
        model = tiny_gpt2(0)
        found, _ = logprobs_at(model, self.POSITIONS, self.TARGETS, **given)
        logprobs = model(**given, use_cache=False).logits[0, self.POSITIONS].log_softmax(-1)
        torch.testing.assert_close(found, logprobs.gather(-1, self.TARGETS[:, None])[:, 0])

    def test_hidden_states_come_as_the_layer_would_compute_under_autocast(self, tiny_gpt2: Callable[..., Any]) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            assert hidden_states(tiny_gpt2(0), input_ids=self.IDS).dtype == torch.bfloat16
