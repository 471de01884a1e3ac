"""Which words of two texts differ, for a reader who has both side by side."""

import re
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher

MAX_WORDS = 1_500  # of both texts together
MAX_SHARED = 10_000  # pairs of one word from each text that are the same; comparing takes this times the texts' length
WORD = re.compile(r"\s*\S+\s*")

Piece = tuple[str, bool]
"""A stretch of a text, and whether the other text has it too."""


@dataclass(frozen=True)
class Difference:
    """Two texts in pieces, and the fraction of their words that are not shared, None where they were not compared."""

    before: tuple[Piece, ...]
    after: tuple[Piece, ...]
    changed: float | None


def differences(before: str, after: str) -> Difference:
    """Both texts, whole, in pieces by what they share in the same order.

    Very long texts, and long ones that repeat a few words, are not compared.
    """
    one, two = WORD.findall(before), WORD.findall(after)
    bare: list[list[str]] = [[word.strip() for word in words] for words in (one, two)]
    counts = [Counter(words) for words in bare]
    if len(one) + len(two) > MAX_WORDS or sum(n * counts[1][word] for word, n in counts[0].items()) > MAX_SHARED:
        return Difference(_whole(before), _whole(after), None)
    matcher = SequenceMatcher(None, bare[0], bare[1], autojunk=False)
    left: list[Piece] = []
    right: list[Piece] = []
    for what, start, stop, first, last in matcher.get_opcodes():
        same = what == "equal"
        left.append(("".join(one[start:stop]), same))
        right.append(("".join(two[first:last]), same))
    changed = 1.0 - matcher.ratio() if one or two else 0.0
    return Difference(_some(left) or _whole(before), _some(right) or _whole(after), changed)


def _whole(text: str) -> tuple[Piece, ...]:
    return ((text, True),)


def _some(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Those that are not empty; the white space behind a word is no difference."""
    found: list[Piece] = []
    for text, same in pieces:
        bare = text if same else text.rstrip()
        found += [(bare, same), (text[len(bare) :], True)]
    return tuple(piece for piece in found if piece[0])
