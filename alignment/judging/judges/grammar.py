"""The judge `grammar`: the fraction of a text's sentences that the built-in grammar parses, and their sentiment."""

from collections.abc import Mapping, Sequence

from alignment.config import EvaluationConfig
from alignment.data.grammar import grammatical_fraction, sentiment
from alignment.judging.judges.judge import judge


@judge("grammar")
def grammar(texts: Sequence[str], _: EvaluationConfig) -> Mapping[str, Sequence[float]]:
    """The fraction of a text's sentences that parse, and their mean polarity, -1 to 1."""
    return {
        "grammatical": [grammatical_fraction(text) for text in texts],
        "gold_sentiment": [sentiment(text) for text in texts],
    }
