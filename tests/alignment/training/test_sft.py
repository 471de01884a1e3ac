"""Training a base model: the sequences it learns from, by hand, and a loss that falls."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.config import BaseConfig
from alignment.layout import Layout
from alignment.training.sft import blocks, collate, next_token_loss, train_base

BOS, EOS = 100, 101


def cut(*texts: list[int], context: int = 4) -> list[list[int]]:
    return blocks(texts, context, BOS, EOS)


def test_a_short_text_is_one_sequence_that_ends():
    assert cut([1, 2]) == [[1, 2, EOS]]


def test_every_other_text_opens_with_bos_so_that_the_empty_prompt_is_known():
    assert cut([1], [2], [3], [4]) == [[1, EOS], [BOS, 2, EOS], [3, EOS], [BOS, 4, EOS]]


def test_a_long_text_is_its_opening_and_the_whole_blocks_after_it():
    """Nine tokens and EOS are ten: the opening, one whole block, and 9 and EOS are left over."""
    assert cut([1, 2, 3, 4, 5, 6, 7, 8, 9]) == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_eos_belongs_to_a_block_that_it_fills():
    assert cut([1, 2, 3]) == [[1, 2, 3, EOS]]
    assert cut([1, 2, 3, 4, 5, 6, 7]) == [[1, 2, 3, 4], [5, 6, 7, EOS]]


def test_bos_takes_a_place_of_its_own():
    assert cut([1], [1, 2, 3, 4, 5, 6]) == [[1, EOS], [BOS, 1, 2, 3], [4, 5, 6, EOS]]


@given(texts=st.lists(st.lists(st.integers(0, 99), max_size=20)), context=st.integers(1, 8))
def test_sequences_fit_and_follow_the_text(texts, context):
    found = blocks(texts, context, BOS, EOS)
    assert all(1 <= len(sequence) <= context for sequence in found)
    whole = [[*([BOS] if index % 2 else []), *ids, EOS] for index, ids in enumerate(texts)]
    kept = [ids[: max(min(len(ids), context), len(ids) // context * context)] for ids in whole]
    assert [token for sequence in found for token in sequence] == [token for ids in kept for token in ids]


def test_the_loss_is_that_of_the_model_itself(tiny_gpt2):
    """Which computes it from all logits, of padding too, and from labels that are -100 there; one token predicts none.

    Its gradients are the same as well.
    """
    model = tiny_gpt2(0)
    sequences = [[5, 6, 7, 8], [9], [10, 11, 0]]
    labels = torch.tensor([[5, 6, 7, 8], [9, -100, -100, -100], [10, 11, 0, -100]])
    own = model(input_ids=labels.clamp(min=0), labels=labels).loss
    ours = next_token_loss(model, Layout.of(collate(sequences, 0)))
    torch.testing.assert_close(ours, own, rtol=1e-6, atol=0)
    leaves = list(model.parameters())
    for one, two in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(own, leaves), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


CONFIG = BaseConfig(layers=1, width=16, heads=2, context=16, steps=12, batch_size=8, learning_rate=1e-2)
TEXTS = ["a fine film", "the plot was fine", "a dull film", "the acting was dull"] * 10


def train(tokenizer: Any, work: Any, steps: int, seed: int = 0) -> tuple[Any, dict[str, float]]:
    return train_base(TEXTS, tokenizer, CONFIG.model_copy(update={"steps": steps}), seed=seed, work=work)


def test_a_few_steps_bring_the_held_out_perplexity_down_from_that_of_a_guess(tiny_tokenizer, tmp_path):
    """A model that knows nothing has the perplexity of a uniform guess, the size of the vocabulary."""
    _, one = train(tiny_tokenizer, tmp_path / "one", 1)
    _, more = train(tiny_tokenizer, tmp_path / "more", 12)
    assert one["validation_perplexity"] == pytest.approx(len(tiny_tokenizer), rel=0.3)
    assert more["validation_perplexity"] < 0.5 * one["validation_perplexity"]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tiny_tokenizer, tmp_path):
    found = [
        train(tiny_tokenizer, tmp_path / str(number), 2, seed=seed)[0].model.state_dict()
        for number, seed in enumerate((0, 0, 1))
    ]
    first, same, other = (list(state.values()) for state in found)
    assert all(torch.equal(one, two) for one, two in zip(first, same, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first, other, strict=True))


def test_it_tells_its_progress_and_is_ready_to_be_asked(tiny_tokenizer, tmp_path):
    told: list[tuple[int, int]] = []
    config = CONFIG.model_copy(update={"steps": 3})
    loaded, _ = train_base(
        TEXTS, tiny_tokenizer, config, seed=0, work=tmp_path, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert not loaded.model.training
    assert loaded.model.config.n_positions == 16
    assert (loaded.conventions.ends, loaded.conventions.opening, loaded.pad_id) == ((0,), (0,), 0)


def test_a_tiny_model_is_trained_on_one_thread(tiny_tokenizer, tmp_path):
    torch.set_num_threads(2)
    try:
        train(tiny_tokenizer, tmp_path, 1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


def test_too_few_texts_to_hold_one_out_give_no_measure(tiny_tokenizer, tmp_path):
    config = CONFIG.model_copy(update={"steps": 1})
    _, measured = train_base(TEXTS[:4], tiny_tokenizer, config, seed=0, work=tmp_path)
    assert measured == {}


def test_perplexity_is_that_of_the_tokens_after_the_first(base):
    """By hand from the model's own log-softmax: exp of the mean negative log-prob of tokens 2 to n."""
    from alignment.training.sft import _perplexity

    sequences = [[5, 6, 7], [8, 9]]
    total = 0.0
    for ids in sequences:
        logprobs = base.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        total += sum(logprobs[place, ids[place + 1]].item() for place in range(len(ids) - 1))
    assert _perplexity(base, sequences) == pytest.approx(math.exp(-total / 3), rel=1e-5)
