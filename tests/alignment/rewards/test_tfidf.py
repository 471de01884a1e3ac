"""The judge `tfidf`: log-odds by a text's words alone, from files without code, and never a label."""

from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from alignment.config import build_config
from alignment.data.grammar import corpus
from alignment.errors import ConfigError, DataError
from alignment.judging.judges.words import words
from alignment.kinds import REWARDS
from alignment.rewards.protocol import Scoring
from alignment.rewards.tfidf_model import fit

TEXTS, LABELS = zip(*corpus(200, seed=1), strict=True)
HELD_OUT = [text for text, _ in corpus(20, seed=2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tfidf")
    fit(TEXTS, LABELS, made)
    return made


def scores(folder: Path, texts: list[str], completions: list[str] | None = None, **reward: Any) -> list[float | None]:
    config = build_config({})
    judge = config.model_copy(update={"reward": config.reward.model_copy(update={"kind": "tfidf", **reward})})
    samples = [
        {"text": text, "completion": completion} for text, completion in zip(texts, completions or texts, strict=True)
    ]
    return list(REWARDS.get("tfidf")(judge).score(samples, Scoring(folder, folder)).values)


def test_scores_are_scikit_learns_log_odds(folder: Path) -> None:
    terms = TfidfVectorizer(analyzer=words, sublinear_tf=True)
    found = LogisticRegression(C=10.0, solver="liblinear", max_iter=1_000).fit(terms.fit_transform(TEXTS), LABELS)
    assert scores(folder, HELD_OUT) == pytest.approx(found.decision_function(terms.transform(HELD_OUT)).tolist())


def test_praise_scores_above_complaint(folder: Path) -> None:
    praise, complaint = scores(folder, ["the plot is clever and warm.", "the plot is dull and clumsy."])
    assert praise is not None
    assert complaint is not None
    assert praise > 0 > complaint


def test_the_order_of_words_makes_no_difference(folder: Path) -> None:
    backwards = [" ".join(reversed(text.split())) for text in HELD_OUT]
    assert scores(folder, backwards) == pytest.approx(scores(folder, HELD_OUT))
    assert "word salad deceives it" in REWARDS.origin("tfidf").options["note"]


def test_a_text_without_a_known_word_has_the_log_odds_of_the_classes(folder: Path) -> None:
    one, two = scores(folder, ["", "zzz qqq"])
    assert one == two


def test_it_reads_the_completion_where_told(folder: Path) -> None:
    praise = "the plot is clever and warm."
    read = scores(folder, ["the plot is dull and clumsy. " + praise], [praise], reads="completion")
    assert read == scores(folder, [praise])


def test_its_files_hold_no_pickle(folder: Path) -> None:
    assert sorted(file.name for file in folder.iterdir()) == ["vocabulary.json", "weights.npz"]


@pytest.mark.parametrize(("labels", "positive"), [([0] * 4, "0"), ([1] * 4, "4")])
def test_one_class_is_refused(labels: list[int], positive: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"of two classes, and of the 4 that it may learn from {positive} are positive"
    ):
        fit(TEXTS[:4], labels, tmp_path)


# What it may be


@pytest.mark.parametrize(
    "reward", [{"kind": "tfidf"}, {"kind": "sum", "parts": [{"name": "one", "kind": "tfidf"}]}], ids=["alone", "part"]
)
def test_it_never_labels(reward: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"reward\.kind = tfidf is a judge that labels nothing"):
        build_config({"reward": reward})


def test_it_is_always_trained_here() -> None:
    with pytest.raises(
        ConfigError, match=r"reward\.model = some/model: a reward of the kind tfidf is always trained here"
    ):
        build_config({"evaluation": {"gold": [{"name": "words", "kind": "tfidf", "model": "some/model"}]}})


def test_it_needs_labels() -> None:
    with pytest.raises(ConfigError, match="words of the kind tfidf learns from labels"):
        build_config(
            {
                "base": {"model": "some/model"},
                "data": {"path": "pairs.jsonl"},
                "prompts": {"source": "pairs"},
                "pairs": {"source": "given"},
                "reward": {"trained_on": "pairs"},
                "evaluation": {"gold": [{"name": "words", "kind": "tfidf"}]},
            }
        )


def test_it_reads_texts_longer_than_a_reward_model_trained_here() -> None:
    gold = [{"name": "words", "kind": "tfidf"}]
    given = {"base": {"context": 256}, "reward": {"model": "some/model"}, "sampling": {"total_tokens": 200}}
    assert build_config({**given, "evaluation": {"gold": gold}}).evaluation.gold[0].kind == "tfidf"
