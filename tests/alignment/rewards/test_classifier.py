"""The reward model: it learns two classes, and its scores belong to the texts, not to their company."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment.config import RewardConfig
from alignment.errors import DataError, ModelError, ScoreError
from alignment.models import Loaded, positive_class
from alignment.rewards.classifier import _Openings, count_truncated, score_texts, train_reward
from tests.alignment.architectures import Spelling, build, tokenizer

CONFIG = RewardConfig(
    layers=1, width=16, heads=2, context=16, steps=30, batch_size=8, learning_rate=1e-2, min_opening=4
)
TEXTS = ["fine fine fine film", "dull dull dull film"] * 20
LABELS = [1, 0] * 20
SOME = ["a fine film", "", "dull", "the plot was fine and the acting was dull", "猫", "fine"]


# Training


def test_a_few_steps_separate_two_classes(tiny_tokenizer, tmp_path):
    loaded, measured = train_reward(TEXTS, LABELS, tiny_tokenizer, CONFIG, seed=0, work=tmp_path)
    assert measured == {"validation_accuracy": 1.0}
    assert positive_class(loaded.model.config, "auto") == 1
    fine, dull = score_texts(loaded, TEXTS[:2], column=1, batch_size=8)
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
    cut = _Openings(CONFIG, pad_id=0, seed=0)
    rows = [{"ids": list(range(1, 31)), "label": 1}] * 300
    batch = cut(rows)
    lengths = batch["attention_mask"].sum(1)
    assert (lengths.min(), lengths.max()) == (4, 16)
    assert set(lengths.tolist()) == set(range(4, 17))
    assert batch["input_ids"][0, : lengths[0]].tolist() == list(range(1, int(lengths[0]) + 1))
    assert batch["labels"].tolist() == [1] * 300


def test_an_opening_is_never_longer_than_its_text_and_never_empty():
    batch = _Openings(CONFIG, pad_id=0, seed=0)([{"ids": [7], "label": 0}, {"ids": [], "label": 1}])
    assert batch["input_ids"].tolist() == [[7], [0]]
    assert batch["attention_mask"].tolist() == [[1], [1]]


def test_a_context_below_the_shortest_opening_is_the_opening():
    cut = _Openings(CONFIG.model_copy(update={"min_opening": 50}), pad_id=0, seed=0)
    assert (cut.shortest, cut.longest) == (16, 16)


# Scoring


def test_a_score_is_the_raw_logit_of_its_column(reward):
    ids = reward.tokenizer("a fine film", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = reward.model(ids).logits[0].tolist()
    for column in (0, 1):
        assert score_texts(reward, ["a fine film"], column=column, batch_size=1) == pytest.approx([logits[column]])


def test_an_empty_text_has_a_score(reward):
    """That of one padding token, which is looked at."""
    with torch.inference_mode():
        expected = reward.model(torch.tensor([[0]])).logits[0, 1].item()
    assert score_texts(reward, ["", "a fine film"], column=1, batch_size=2)[0] == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(len(SOME))), batch_size=st.integers(1, 8))
def test_a_score_depends_on_the_text_alone(reward, order, batch_size):
    alone = score_texts(reward, SOME, column=1, batch_size=1)
    found = score_texts(reward, [SOME[index] for index in order], column=1, batch_size=batch_size)
    assert found == pytest.approx(alone[list(order)], abs=1e-6)


def test_a_text_is_read_up_to_the_context(reward):
    """Sixteen tokens of one byte each; what follows is cut off."""
    short, long = "0123456789ABCDEF", "0123456789ABCDEF and more"
    assert len(reward.tokenizer(short)["input_ids"]) == 16
    one, two = score_texts(reward, [short, long], column=1, batch_size=2)
    assert one == two


@pytest.mark.parametrize(("positions", "longest", "limit"), [(16, 64, 16), (66, 64, 64), (16, int(1e30), 16)])
def test_the_limit_is_the_tighter_of_the_models_and_the_tokenizers(reward, positions, longest, limit):
    """Some tokenizers name no limit but a huge number."""
    tokenizer = copy.deepcopy(reward.tokenizer)
    tokenizer.model_max_length = longest
    model = copy.deepcopy(reward.model)
    model.config.max_position_embeddings = positions
    model.distilbert.embeddings.position_embeddings = torch.nn.Embedding(positions, 8)
    loaded = type(reward)(model, tokenizer)
    assert count_truncated(loaded, ["0" * limit, "0" * (limit + 1)]) == 1


def test_texts_of_which_the_end_is_not_read_are_counted(reward):
    assert count_truncated(reward, ["0123456789ABCDEF", "0123456789ABCDEF and more", ""]) == 1


def test_scoring_tells_its_progress(reward):
    told: list[tuple[int, int]] = []
    score_texts(reward, SOME, column=1, batch_size=4, progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 6), (6, 6)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused_with_a_text(reward, value):
    """One class's bias is spoilt: the other class's column is still good."""
    broken = type(reward)(copy.deepcopy(reward.model), reward.tokenizer)
    with torch.no_grad():
        broken.model.classifier.bias[1] = value
    with pytest.raises(ScoreError) as raised:
        score_texts(broken, SOME, column=1, batch_size=4)
    assert str(raised.value) == (
        "reward model: 6 of 6 scores are not finite, the first for 'a fine film'; "
        "check the model's weights, or its precision"
    )
    assert np.isfinite(score_texts(broken, SOME, column=0, batch_size=4)).all()


def test_a_text_with_a_token_that_the_model_has_no_embedding_for_is_refused(reward):
    """It was added to the tokenizer, and the model was not resized: on a GPU the process would be lost."""
    tokenizer = copy.deepcopy(reward.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    loaded = type(reward)(reward.model, tokenizer, "reward.model x")
    assert score_texts(loaded, SOME, column=1, batch_size=4) == pytest.approx(
        score_texts(reward, SOME, column=1, batch_size=4), abs=1e-6
    )
    with pytest.raises(ModelError, match=r"^reward\.model x: a text holds the token id \d+ \('<tool>'\)"):
        score_texts(loaded, [*SOME, "a <tool>"], column=1, batch_size=4)


@pytest.mark.parametrize("config", [None, -1], ids=["no padding token", "-1, as older configs have it"])
def test_a_text_that_ends_in_what_pads_is_read_to_its_end(config):
    """A classifier on a causal model takes the last token before the padding for the text's last."""
    model = build("llama", task="SequenceClassification", num_labels=1)
    model.config.pad_token_id = config
    loaded = Loaded(model, tokenizer(Spelling(ends=True, pad=False)))
    texts = ["BCA", "A", "ABCDEFA"]
    found = score_texts(loaded, texts, column=0, batch_size=3)
    model.config.pad_token_id = None  # one text at a time: its last token
    with torch.inference_mode():
        alone = [float(model(**loaded.tokenizer(text, return_tensors="pt")).logits[0, 0]) for text in texts]
    assert found == pytest.approx(alone, abs=1e-5)


def test_a_model_without_a_limit_reads_whole_texts():
    """BLOOM names none, and its tokenizer a number beyond every integer."""
    model = build("bloom", task="SequenceClassification", num_labels=1)
    loaded = Loaded(model, tokenizer(Spelling()))
    assert count_truncated(loaded, ["A" * 300]) == 0
    assert np.isfinite(score_texts(loaded, ["A" * 300, "ABC"], column=0, batch_size=2)).all()
