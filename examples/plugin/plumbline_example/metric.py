"""The metric `exclamations`: how many texts shout."""

from collections.abc import Sequence

from alignment.judging.formats import PERCENT
from alignment.judging.metric import metric


@metric("exclamations", label="texts that shout", format=PERCENT, better="lower")
def exclamations(texts: Sequence[str]) -> float:
    """Fraction of texts with an exclamation mark; the parameter names the column that it is computed from."""
    return sum("!" in text for text in texts) / len(texts)
