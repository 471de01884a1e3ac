"""Judges: figures by name, one value for each text; they label nothing."""

from alignment.config import EvaluationConfig
from alignment.data.grammar import corpus, grammatical_fraction, sentiment
from alignment.judging.metric import metrics
from alignment.kinds import JUDGES

CONFIG = EvaluationConfig()
TEXTS = [text for text, _ in corpus(3, seed=0)] + ["no sentence of it.", ""]


def test_the_grammar_gives_the_fraction_that_parses_and_the_sentiment_of_each_text() -> None:
    found = JUDGES.get("grammar")(TEXTS, CONFIG)
    assert found == {
        "grammatical": [grammatical_fraction(text) for text in TEXTS],
        "gold_sentiment": [sentiment(text) for text in TEXTS],
    }
    assert found["grammatical"][:4] == [1.0, 1.0, 1.0, 0.0]


def test_without_a_judge_there_are_no_figures() -> None:
    assert JUDGES.get("none")(TEXTS, CONFIG) == {}


def test_every_figure_of_a_judge_is_what_a_metric_is_computed_from() -> None:
    read = {name for metric in metrics("model") for name in metric.inputs}
    for judge in JUDGES.all().values():
        assert judge(TEXTS, CONFIG).keys() <= read
