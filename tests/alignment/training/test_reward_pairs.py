"""Training a reward model on pairs, and from a pretrained model: the loss by hand, what is held out, what is learnt."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignment.config import RewardConfig
from alignment.data.preferences import Preference, preference
from alignment.errors import DataError, ModelError
from alignment.logits import class_logits
from alignment.models import Loaded, load_reward, load_start, save
from alignment.rewards.classifier import positive_class, score_texts
from alignment.rewards.reading import read_samples
from alignment.training.reward import padded, train_reward
from alignment.training.reward_pairs import as_sample, bradley_terry, hold_out, train_on_pairs
from tests.alignment.architectures import Spelling, build, tokenizer

CONFIG = RewardConfig(
    trained_on="pairs", layers=1, width=16, heads=2, context=16, steps=30, batch_size=8, learning_rate=1e-2
)
PAIRS = [preference({"prompt": f"{n} ", "chosen": "fine fine", "rejected": "dull dull"}) for n in range(40)]
TURNS = "{{ bos_token }}{% for m in messages %}{{ m['role'][0] | upper }}{{ m['content'] }}E{% endfor %}"
CHATS = [
    preference(
        {
            "prompt": [{"role": "user", "content": chr(65 + number % 20) + chr(65 + number // 20)}],
            "chosen": [{"role": "assistant", "content": "BBB"}],
            "rejected": [{"role": "assistant", "content": "CCC"}],
        }
    )
    for number in range(40)
]


@pytest.fixture
def start(tmp_path: Path) -> str:
    """A folder with a language model of random weights, whose config names no padding and whose tokenizer chats."""
    spelling = tokenizer(Spelling(begins=True, ends=True, pad=False))
    spelling.chat_template = TURNS
    model = build("llama", pad_token_id=None)
    save(Loaded(model, spelling), tmp_path / "start")
    return str(tmp_path / "start")


# The loss


def test_the_loss_is_minus_the_log_of_the_probability_that_chosen_wins() -> None:
    found = bradley_terry(torch.tensor([0.0, 2.0, -1.0]), torch.tensor([0.0, 0.5, 1.0]))
    assert found.tolist() == pytest.approx([math.log(2), math.log(1 + math.exp(-1.5)), math.log(1 + math.exp(2))])


# What is held out


def test_a_tenth_is_held_out_and_no_prompt_is_on_both_sides() -> None:
    pairs = [preference({"prompt": f"{n % 20} ", "chosen": f"a{n}", "rejected": f"b{n}"}) for n in range(100)]
    held_out, kept = hold_out(pairs)
    assert (len(held_out), len(kept)) == (10, 90)
    assert not {str(pair.prompt) for pair in held_out} & {str(pair.prompt) for pair in kept}
    assert hold_out(pairs[::-1])[0][0].prompt == held_out[0].prompt


def test_pairs_of_one_prompt_are_all_trained_on() -> None:
    pairs = [preference({"prompt": "a ", "chosen": f"a{n}", "rejected": f"b{n}"}) for n in range(20)]
    assert hold_out(pairs) == ([], pairs)


# Training


def test_a_few_steps_tell_the_chosen_from_the_rejected(tiny_tokenizer: Any, tmp_path: Path) -> None:
    loaded, measured, _ = train_on_pairs(PAIRS, tiny_tokenizer, CONFIG, seed=0, work=tmp_path)
    assert measured == {"validation_accuracy": 1.0}
    assert positive_class(loaded.model.config, "auto") == 0
    fine, dull = score_texts(loaded, ["7 fine fine", "7 dull dull"], column=0)
    assert fine > dull
    assert not loaded.model.training


def test_the_same_seed_gives_the_same_model(tiny_tokenizer: Any, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 2})
    one, two = (
        train_on_pairs(PAIRS, tiny_tokenizer, config, seed=3, work=tmp_path / name)[0].model.state_dict()
        for name in "ab"
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_conversations_are_read_by_the_chat_template_of_the_model_that_it_starts_from(
    start: str, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"start": start, "context": 32, "steps": 40, "learning_rate": 3e-3})
    loaded, measured, _ = train_on_pairs(CHATS, None, config, seed=0, work=tmp_path / "work")
    assert measured == {"validation_accuracy": 1.0}
    assert loaded.model.config.pad_token_id is None  # as it was: the padding of the training is not the model's
    save(loaded, tmp_path / "made")
    again = load_reward(tmp_path / "made")
    samples = [as_sample(CHATS[0], side) | {"prompt": ""} for side in ("chosen", "rejected")]
    read = read_samples(again, samples, "auto")
    messages = [*CHATS[0].prompt, *CHATS[0].chosen]
    assert read.ids[0] == again.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    chosen, rejected = class_logits(again, read.ids)[:, 0]
    assert chosen > rejected


def test_conversations_without_a_chat_template_are_refused(tiny_tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^reward\.trained_on = pairs: the pairs are conversations, .* set reward\.start"
    ):
        train_on_pairs(CHATS, tiny_tokenizer, CONFIG, seed=0, work=tmp_path)


def test_texts_that_are_cut_are_counted_and_pairs_that_read_alike_then_left_out(
    tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """The model reads 16 tokens: a long prompt hides what differs."""
    hidden = preference({"prompt": "the plot was fine " * 20, "chosen": "fine", "rejected": "dull"})
    _, _, counts = train_on_pairs([*PAIRS, hidden], tiny_tokenizer, CONFIG, seed=0, work=tmp_path / "some")
    assert counts == {"truncated": 2, "sides_read_alike": 1}
    with pytest.raises(DataError, match=r"both sides of every pair read alike in 16 tokens; raise reward\.context"):
        train_on_pairs([hidden], tiny_tokenizer, CONFIG, seed=0, work=tmp_path / "none")


def test_conversations_that_would_be_scored_as_whole_texts_are_refused(start: str, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"start": start, "reads": "whole"})
    with pytest.raises(DataError, match=r"reward\.reads = whole: the pairs are conversations"):
        train_on_pairs(CHATS, None, config, seed=0, work=tmp_path)


def test_of_a_completion_of_several_turns_the_last_is_the_answer() -> None:
    turns = [
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "C"},
        {"role": "assistant", "content": "D"},
    ]
    pair = Preference([{"role": "user", "content": "A"}], turns, turns[:1], explicit=True)
    found = as_sample(pair, "chosen")
    assert ([message["content"] for message in found["messages"]], found["completion"]) == (["A", "B", "C"], "D")


# A pretrained model


def test_a_pretrained_model_keeps_its_weights_and_gets_a_head_by_the_seed(start: str) -> None:
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(load_start(start, ("REWARD",)).model.state_dict())
    one, same, other = made
    heads = {name for name in one if not name.startswith("model.")}
    assert heads == {"score.weight"}
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert {name for name in one if not torch.equal(one[name], other[name])} == heads
    plain = build("llama", pad_token_id=None).state_dict()
    assert all(torch.equal(one[name], plain[name]) for name in one if name not in heads)


def test_labels_are_learnt_from_a_pretrained_model_whose_tokenizer_begins_and_ends_texts(
    start: str, tmp_path: Path
) -> None:
    texts, labels = ["AABBAABB", "CCDDCCDD"] * 20, [1, 0] * 20
    config = CONFIG.model_copy(update={"start": start, "trained_on": "labels", "min_opening": 6, "context": 10})
    loaded, measured = train_reward(texts, labels, None, config, seed=0, work=tmp_path / "work")
    assert measured == {"validation_accuracy": 1.0}
    scores = score_texts(loaded, texts[:2], column=1)
    assert scores[0] > scores[1]
    assert loaded.tokenizer.model_max_length == 10


def test_a_context_that_the_pretrained_model_lacks_is_refused(start: str, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"start": start, "context": 100})
    with pytest.raises(ModelError, match=r"^reward\.context = 100 exceeds the context of 64 tokens"):
        train_on_pairs(PAIRS, None, config, seed=0, work=tmp_path)


def test_while_it_trains_a_decoder_pads_with_what_ends_no_text(start: str) -> None:
    torch.manual_seed(0)
    loaded = load_start(start, ("REWARD",))
    rows = [[1, 2, 5], [1, 0], [1, 2]]
    with padded(loaded, rows) as pad_id:
        assert pad_id not in {token for row in rows for token in row}
        assert loaded.model.config.pad_token_id == pad_id
        width = max(map(len, rows))
        batch = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        with torch.inference_mode():
            together = loaded.model(input_ids=batch, attention_mask=mask).logits[:, 0]
            alone = [float(loaded.model(torch.tensor([row])).logits[0, 0]) for row in rows]
    assert np.asarray(together) == pytest.approx(alone, abs=1e-5)
