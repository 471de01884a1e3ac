"""Training a reward model: it learns two classes from openings of texts."""

import pytest
import torch

from alignment.config import RewardConfig
from alignment.errors import DataError
from alignment.rewards.classifier import positive_class, score_texts
from alignment.training.reward import Openings, train_reward

CONFIG = RewardConfig(
    layers=1, width=16, heads=2, context=16, steps=30, batch_size=8, learning_rate=1e-2, min_opening=4
)
TEXTS = ["fine fine fine film", "dull dull dull film"] * 20
LABELS = [1, 0] * 20


def test_a_few_steps_separate_two_classes(tiny_tokenizer, tmp_path):
    loaded, measured = train_reward(TEXTS, LABELS, tiny_tokenizer, CONFIG, seed=0, work=tmp_path)
    assert measured == {"validation_accuracy": 1.0}
    assert positive_class(loaded.model.config, "auto") == 1
    fine, dull = score_texts(loaded, TEXTS[:2], column=1)
    assert fine > dull
    assert not loaded.model.training


def test_it_tells_its_progress(tiny_tokenizer, tmp_path):
    told: list[tuple[int, int]] = []
    train_reward(
        TEXTS,
        LABELS,
        tiny_tokenizer,
        CONFIG.model_copy(update={"steps": 2}),
        seed=0,
        work=tmp_path,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]


def test_the_same_seed_gives_the_same_model(tiny_tokenizer, tmp_path):
    config = CONFIG.model_copy(update={"steps": 2})
    one, two = (
        train_reward(TEXTS, LABELS, tiny_tokenizer, config, seed=3, work=tmp_path / name)[0].model.state_dict()
        for name in "ab"
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_tiny_model_is_trained_on_one_thread(tiny_tokenizer, tmp_path):
    torch.set_num_threads(2)
    try:
        train_reward(TEXTS, LABELS, tiny_tokenizer, CONFIG.model_copy(update={"steps": 1}), seed=0, work=tmp_path)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)


def test_too_few_texts_to_hold_one_out_give_no_measure(tiny_tokenizer, tmp_path):
    config = CONFIG.model_copy(update={"steps": 1})
    _, measured = train_reward(TEXTS[:4], LABELS[:4], tiny_tokenizer, config, seed=0, work=tmp_path)
    assert measured == {}


@pytest.mark.parametrize(("labels", "found"), [([1] * 40, "[1]"), ([0] * 40, "[0]"), ([-1] * 40, "[-1]")])
def test_texts_of_one_class_are_refused(tiny_tokenizer, tmp_path, labels, found):
    with pytest.raises(DataError) as raised:
        train_reward(TEXTS, labels, tiny_tokenizer, CONFIG, seed=0, work=tmp_path)
    assert str(raised.value) == (
        f"reward.model = train needs texts of both classes, found only label {found}; "
        "check data.label_column and data.positive_label, or give a reward model"
    )


def test_it_learns_from_openings_between_the_shortest_and_the_context():
    cut = Openings(CONFIG, pad_id=0, seed=0)
    rows = [{"ids": list(range(1, 31)), "label": 1}] * 300
    batch = cut(rows)
    lengths = batch["attention_mask"].sum(1)
    assert (lengths.min(), lengths.max()) == (4, 16)
    assert set(lengths.tolist()) == set(range(4, 17))
    assert batch["input_ids"][0, : lengths[0]].tolist() == list(range(1, int(lengths[0]) + 1))
    assert batch["labels"].tolist() == [1] * 300


def test_an_opening_is_never_longer_than_its_text_and_never_empty():
    batch = Openings(CONFIG, pad_id=0, seed=0)([{"ids": [7], "label": 0}, {"ids": [], "label": 1}])
    assert batch["input_ids"].tolist() == [[7], [0]]
    assert batch["attention_mask"].tolist() == [[1], [1]]


def test_a_context_below_the_shortest_opening_is_the_opening():
    cut = Openings(CONFIG.model_copy(update={"min_opening": 50}), pad_id=0, seed=0)
    assert (cut.shortest, cut.longest) == (16, 16)
