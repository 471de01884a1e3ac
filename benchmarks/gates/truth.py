"""What became of a model's text, by signals that no judged gate reads: good, degraded, or word salad.

On the grammar: the drop of the fraction of sentences that parse. On reviews the worse of two: the fraction lost of the
word pairs that real reviews have too, and how well a classifier tells real reviews from the model's, as an AUC; neither
base nor reward model was trained on those. Word pairs alone miss a text that has shrunk to common words, `and in it
and`; the classifier alone sees what a text is about as much as how it is written.
"""

import math
from typing import Literal, TypeAlias

from benchmarks.gates.rows import Row

Class: TypeAlias = Literal["good", "degraded", "word salad"]

CLASSES: tuple[Class, ...] = ("good", "degraded", "word salad")
CUTS: dict[str, tuple[float, float]] = {"unparsed": (0.10, 0.40), "unseen": (0.10, 0.40), "told": (0.95, 0.998)}
"""Above the first a signal says degraded, above the second word salad.

Those of `told` are where it parts the parser's classes on the grammar, with the choosing seeds alone.
"""


def signals(row: Row) -> dict[str, float]:
    """What says what became of the text. Raises ValueError where it was not measured."""
    if row.run.data == "grammar":
        found = {"unparsed": row.get("grammatical_before") - row.get("grammatical_after")}
    else:
        found = {"unseen": 1.0 - row.get("seen_after") / row.get("seen_before"), "told": row.get("told_after")}
    if missing := [name for name, value in found.items() if math.isnan(value)]:
        raise ValueError(f"{row.run.name}: {' and '.join(missing)} not measured, which say what became of its text")
    return found


def by(name: str, value: float) -> Class:
    """The class that one signal says."""
    degraded, salad = CUTS[name]
    return "good" if value <= degraded else "degraded" if value <= salad else "word salad"


def class_of(row: Row) -> Class:
    """The class of a run: the worst that a signal says."""
    return max((by(name, value) for name, value in signals(row).items()), key=CLASSES.index)
