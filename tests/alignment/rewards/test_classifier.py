"""The reward `classifier`: its scores belong to the texts, not to their company."""

import copy
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment.config import AlignConfig, build_config
from alignment.errors import ModelError, ScoreError
from alignment.kinds import REWARDS
from alignment.models import Loaded
from alignment.rewards.classifier import positive_class, score_texts
from alignment.rewards.protocol import Scoring
from alignment.rewards.reading import read_texts
from tests.alignment.architectures import Spelling, build, tokenizer

SOME = ["a fine film", "", "dull", "the plot was fine and the acting was dull", "猫", "fine"]


# Scoring


def test_a_score_is_the_raw_logit_of_its_column(reward):
    ids = reward.tokenizer("a fine film", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = reward.model(ids).logits[0].tolist()
    for column in (0, 1):
        assert score_texts(reward, ["a fine film"], column=column) == pytest.approx([logits[column]])


def test_an_empty_text_has_a_score(reward):
    """That of one padding token, which is looked at."""
    with torch.inference_mode():
        expected = reward.model(torch.tensor([[0]])).logits[0, 1].item()
    assert score_texts(reward, ["", "a fine film"], column=1)[0] == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(len(SOME))), batch_tokens=st.integers(1, 80))
def test_a_score_depends_on_the_text_alone(reward, order, batch_tokens):
    alone = score_texts(reward, SOME, column=1, batch_tokens=1)
    found = score_texts(reward, [SOME[index] for index in order], column=1, batch_tokens=batch_tokens)
    assert found == pytest.approx(alone[list(order)], abs=1e-6)


def test_a_text_is_read_up_to_the_context(reward):
    """Sixteen tokens of one byte each; what follows is cut off."""
    short, long = "0123456789ABCDEF", "0123456789ABCDEF and more"
    assert len(reward.tokenizer(short)["input_ids"]) == 16
    one, two = score_texts(reward, [short, long], column=1)
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
    assert read_texts(loaded, ["0" * limit, "0" * (limit + 1)]).truncated == 1


def test_texts_of_which_the_end_is_not_read_are_counted(reward):
    assert read_texts(reward, ["0123456789ABCDEF", "0123456789ABCDEF and more", ""]).truncated == 1


def test_scoring_tells_its_progress(reward):
    told: list[tuple[int, int]] = []
    texts = ["012", "0", "1"]  # three tokens, and one each
    score_texts(reward, texts, column=1, batch_tokens=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused_with_a_text(reward, value):
    """One class's bias is spoilt: the other class's column is still good."""
    broken = type(reward)(copy.deepcopy(reward.model), reward.tokenizer)
    with torch.no_grad():
        broken.model.classifier.bias[1] = value
    with pytest.raises(ScoreError) as raised:
        score_texts(broken, SOME, column=1)
    assert str(raised.value).startswith("reward: 6 of 6 scores are not finite, the first for 'a fine film'; check the")
    assert np.isfinite(score_texts(broken, SOME, column=0)).all()


def test_a_text_with_a_token_that_the_model_has_no_embedding_for_is_refused(reward):
    """It was added to the tokenizer, and the model was not resized: on a GPU the process would be lost."""
    tokenizer = copy.deepcopy(reward.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    loaded = type(reward)(reward.model, tokenizer, "reward.model x")
    assert score_texts(loaded, SOME, column=1) == pytest.approx(score_texts(reward, SOME, column=1), abs=1e-6)
    with pytest.raises(ModelError, match=r"^reward\.model x: a text holds the token id \d+ \('<tool>'\)"):
        score_texts(loaded, [*SOME, "a <tool>"], column=1)


@pytest.mark.parametrize("config", [None, -1], ids=["no padding token", "-1, as older configs have it"])
def test_a_text_that_ends_in_what_pads_is_read_to_its_end(config):
    """A classifier on a causal model takes the last token before the padding for the text's last."""
    model = build("llama", task="SequenceClassification", num_labels=1)
    model.config.pad_token_id = config
    loaded = Loaded(model, tokenizer(Spelling(ends=True, pad=False)))
    texts = ["BCA", "A", "ABCDEFA"]
    found = score_texts(loaded, texts, column=0)
    model.config.pad_token_id = None  # one text at a time: its last token
    with torch.inference_mode():
        alone = [float(model(**loaded.tokenizer(text, return_tensors="pt")).logits[0, 0]) for text in texts]
    assert found == pytest.approx(alone, abs=1e-5)


def test_a_model_without_a_limit_reads_whole_texts():
    """BLOOM names none, and its tokenizer a number beyond every integer."""
    model = build("bloom", task="SequenceClassification", num_labels=1)
    loaded = Loaded(model, tokenizer(Spelling()))
    assert read_texts(loaded, ["A" * 300]).truncated == 0
    assert np.isfinite(score_texts(loaded, ["A" * 300, "ABC"], column=0)).all()


# As a kind of reward


def test_it_is_the_reward_of_that_name_and_reads_the_stages_folder(reward, reward_folder, tmp_path):
    """The text counts, with its prompt; the second is longer than the 16 tokens that the model reads."""
    (tmp_path / "model").symlink_to(reward_folder)
    samples = [{"prompt": "a", "text": "a fine film"}, {"prompt": "0", "text": "0123456789ABCDEF and more"}]
    told: list[tuple[int, int]] = []
    kind = REWARDS.get("classifier")(AlignConfig())
    found = kind.score(samples, Scoring(tmp_path, tmp_path, lambda done, total: told.append((done, total))))
    expected = score_texts(reward, [sample["text"] for sample in samples], column=1)
    assert found.values == pytest.approx(expected.tolist(), abs=1e-6)
    assert (found.truncated, told) == (1, [(2, 2)])


def test_the_config_names_the_class_and_an_unknown_one_is_refused_with_the_models_name(reward_folder, tmp_path):
    (tmp_path / "model").symlink_to(reward_folder)
    samples = [{"prompt": "", "text": "a fine film"}]

    def score(wanted: str) -> float:
        kind = REWARDS.get("classifier")(build_config({"reward": {"positive_class": wanted}}))
        return float(kind.score(samples, Scoring(tmp_path, tmp_path)).values[0])

    assert score("auto") == score("POSITIVE") == score("1") != score("NEGATIVE")
    assert "the reward model's classes are NEGATIVE, POSITIVE; set" in refusal(lambda: score("KIND"))


# The class to reward


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as raised:
        call()
    return str(raised.value)


@pytest.mark.parametrize(
    ("names", "wanted", "index"),
    [
        (["NEGATIVE", "POSITIVE"], "auto", 1),
        (["positive", "negative"], "auto", 0),
        (["neg", "neutral", "pos"], "auto", 2),
        (["LABEL_0", "LABEL_1"], "auto", 1),
        (["LABEL_0"], "auto", 0),
        (["helpful"], "auto", 0),
        (["toxic", "kind"], "kind", 1),
        (["toxic", "kind"], "0", 0),
        (["1", "0"], "1", 0),
        (["1", "0"], "0", 1),
        (["1 star", "2 stars", "3 stars"], "2", 2),
        (["1", "2", "3"], "2", 1),
    ],
)
def test_the_class_to_reward_is_found(names, wanted, index):
    assert positive_class(SimpleNamespace(id2label=dict(enumerate(names))), wanted) == index


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["toxic", "kind"], "auto"),
        (["LABEL_0", "LABEL_1", "LABEL_2"], "auto"),
        (["toxic", "kind"], "KIND"),
        (["toxic", "kind"], "2"),
    ],
)
def test_a_class_that_is_not_there_is_refused_with_those_that_are(names, wanted):
    config = SimpleNamespace(id2label=dict(enumerate(names)))
    assert refusal(lambda: positive_class(config, wanted)) == (
        f"reward.positive_class: the reward model's classes are {', '.join(names)}; "
        "set reward.positive_class to the one to reward"
    )


def test_a_name_of_several_classes_is_refused():
    config = SimpleNamespace(id2label={0: "bad", 1: "good", 2: "good"})
    assert refusal(lambda: positive_class(config, "good")) == (
        "reward.positive_class: the reward model's classes are bad, good, good; good names several: give its index"
    )
    assert positive_class(config, "2") == 2
