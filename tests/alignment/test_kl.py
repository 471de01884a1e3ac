"""The exact KL of samples against torch's own, from plain forward passes of one unpadded text at a time."""

import random
from typing import Any

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from alignment import kl
from alignment.kl import divergence
from alignment.logprobs import score_completions, why_padded
from tests.alignment.architectures import PAD, build

KINDS = ["gpt2", "gpt_neox", "opt", "bloom", "llama", "mistral", "gemma2", "cohere2", "gemma3_text", "mamba"]
"""Flat and padded layouts, windows, state-space layers, heads that scale or cap their logits."""

draw = random.Random(1)
PROMPTS = [[draw.randrange(4, 64) for _ in range(draw.randint(1, 9))] for _ in range(3)] * 2
COMPLETIONS = [[draw.randrange(4, 64) for _ in range(draw.randint(2, 16))] for _ in range(6)]


@torch.inference_mode()
def plain(policy: Any, reference: Any, prompt: list[int], completion: list[int]) -> float:
    """The sum of torch's KL over the positions of one completion."""
    ids = torch.tensor([[*prompt, *completion]])
    own, others = (
        Categorical(logits=model(ids).logits[0, len(prompt) - 1 : -1].double()) for model in (policy, reference)
    )
    return float(kl_divergence(own, others).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_torch_s_kl_of_each_text_alone(kind: str) -> None:
    """Whatever the layout: in batches of one, of some, and of all texts."""
    policy, reference = build(kind, 0), build(kind, 1)
    expected = [plain(policy, reference, *each) for each in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert min(expected) > 0.05, "two random models are far apart"
    for tokens in (1, 40, 4_096):
        found = divergence(policy, reference, PROMPTS, COMPLETIONS, pad_id=PAD, batch_tokens=tokens)
        assert found.kl.tolist() == pytest.approx(expected, rel=1e-5, abs=2e-5)


@pytest.mark.parametrize("kind", ["gpt2", "mamba"])
def test_both_models_log_probs_come_from_the_same_passes(kind: str) -> None:
    policy, reference = build(kind, 0), build(kind, 1)
    assert bool(why_padded(policy, PROMPTS, COMPLETIONS)) == (kind == "mamba"), "one lies flat, the other is padded"
    found = divergence(policy, reference, PROMPTS, COMPLETIONS, pad_id=PAD)
    for model, logprobs in ((policy, found.policy), (reference, found.reference)):
        assert logprobs == pytest.approx(score_completions(model, PROMPTS, COMPLETIONS, pad_id=PAD), abs=5e-5)


def test_a_model_is_at_no_distance_from_itself() -> None:
    model = build("llama")
    found = divergence(model, model, PROMPTS, COMPLETIONS, pad_id=PAD)
    assert found.kl == pytest.approx(0.0, abs=1e-5)


def test_its_mean_over_samples_is_that_of_the_sampled_log_ratio() -> None:
    """And it varies less: both estimate the KL of whole sequences, here of four tokens after one prompt."""
    policy, reference = build("gpt2", 0), build("gpt2", 1)
    prompt, count = [5, 9], 4_000
    ids = torch.tensor([prompt] * count)
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            chances = policy(ids).logits[:, -1].softmax(-1)
            ids = torch.cat([ids, torch.multinomial(chances, 1, generator=generator)], 1)
    found = divergence(policy, reference, [prompt] * count, ids[:, 2:].tolist(), pad_id=PAD)
    sampled = found.policy - found.reference
    error = float(((found.kl - sampled).var() / count) ** 0.5)
    assert abs(found.kl.mean() - sampled.mean()) < 3 * error
    assert found.kl.std() < sampled.std()


def test_a_token_that_neither_can_write_adds_nothing_and_one_that_only_the_policy_can_adds_infinity() -> None:
    never = -torch.inf
    policy = torch.tensor([[0.0, 0.0, never]])
    both, one = torch.tensor([[0.0, 1.0, never]]), torch.tensor([[0.0, never, 0.0]])
    target = torch.tensor([0])
    expected = kl_divergence(Categorical(logits=policy[:, :2]), Categorical(logits=both[:, :2]))
    assert kl._divergence(policy, both, target)[2].tolist() == pytest.approx(expected.tolist())
    assert kl._divergence(policy, one, target)[2].tolist() == [torch.inf]


def test_some_positions_at_a_time_give_what_all_at_once_do(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, reference = build("gpt2", 0), build("gpt2", 1)
    whole = divergence(policy, reference, PROMPTS, COMPLETIONS, pad_id=PAD)
    monkeypatch.setattr(kl, "CHUNK", {"cpu": 3 * 64, "cuda": 3 * 64})  # three positions of 64 logits
    parts = divergence(policy, reference, PROMPTS, COMPLETIONS, pad_id=PAD)
    assert parts.kl == pytest.approx(whole.kl, abs=1e-5)
