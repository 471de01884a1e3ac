"""What became of a model's text, by signals that no judged gate reads: good, degraded, or word salad.

Both scales begin at 0, the base model's own text. On the grammar it is the drop of the fraction of sentences that
parse. On reviews it is the fraction lost of the word pairs that other real reviews have too, of which neither the base
nor the reward model was trained on any.
"""

import math
from typing import Literal, TypeAlias

from benchmarks.gates.rows import Row

Class: TypeAlias = Literal["good", "degraded", "word salad"]

CLASSES: tuple[Class, ...] = ("good", "degraded", "word salad")
DEGRADED, WORD_SALAD = 0.10, 0.40
"""Above these the text is degraded, and word salad."""


def disorder(row: Row) -> float:
    """How much of the base's order the text has lost. Raises ValueError where it was not measured."""
    if row.run.data == "grammar":
        found = row.get("grammatical_before") - row.get("grammatical_after")
    else:
        found = 1.0 - row.get("seen_after") / row.get("seen_before")
    if math.isnan(found):
        raise ValueError(f"{row.run.name}: nothing was measured that says what became of its text")
    return found


def class_of(row: Row) -> Class:
    """The class of a run."""
    found = disorder(row)
    return "good" if found <= DEGRADED else "degraded" if found <= WORD_SALAD else "word salad"
