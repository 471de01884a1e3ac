"""Words as the judges of real texts count them, whatever the tokenizer of a model makes of a text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

_WORD = re.compile(
    r"</?[A-Za-z][^<>]{0,80}>"  # a tag of HTML, as in reviews
    r"|[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"  # Chinese and Japanese have no blanks between words
    r"|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+(?:['’][^\W\d_]+)*"
    r"|[^\w\s]"
)


@dataclass(frozen=True)
class Passages:
    """N texts, each judged from a character on: what stands before it, such as a prompt, is only read."""

    texts: Sequence[str]
    starts: Sequence[int] = ()  # the characters; empty: whole texts are judged

    def __post_init__(self) -> None:
        """Raise ValueError unless each text has a start."""
        if self.starts and len(self.starts) != len(self.texts):
            raise ValueError(f"passages: {len(self.starts)} starts for {len(self.texts)} texts")

    def words_before(self, number: int) -> int:
        """How many words of a text end before its judged part begins: a word that goes on into it is judged."""
        start = self.starts[number] if self.starts else 0
        return sum(end <= start for _, end in spans(self.texts[number])) if start else 0


def spans(text: str) -> list[tuple[int, int]]:
    """Where each word of a text begins and ends: a run of letters and digits, a sign, or a tag of HTML."""
    return [match.span() for match in _WORD.finditer(text)]


def words(text: str) -> list[str]:
    """The words of a text in small letters."""
    return [match.group().lower() for match in _WORD.finditer(text)]
