"""A reward that can be read: an answer of one to three sentences, that ends properly and is about the question.

It has the calling convention of TRL's reward functions. A reward that looks at length alone is won by a model that says
"Yes." to everything, or the same polite sentence; so an answer must also have some words, not repeat itself, take up
what was asked, and add to it. It cannot tell whether an answer is right.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

SENTENCES = 3  # at most
WORDS = 8  # at least; fewer give a part of the points
SMALL_WORDS = re.compile(
    "about|also|and|are|can|could|did|does|for|from|had|has|have|her|him|his|how|into|its|may|more|most|not|our|she|"
    "should|than|that|the|their|them|then|there|these|they|this|those|was|were|what|when|where|which|who|why|will|with|would|"
    "you|your"
)


def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """One score for each completion, from about -2 (nothing, or babble) to 4."""
    return [score(said(prompt), said(answer)) for prompt, answer in zip(prompts, completions, strict=True)]


def score(question: str, answer: str) -> float:
    """The points of one answer."""
    words, asked = content_words(answer), content_words(question)
    spoken = re.findall(r"[^\W_]+(?:['’][^\W_]+)?", answer.lower())
    if not spoken:
        return -2.0
    points = ends_properly(answer) + brevity(sentences(answer)) + min(len(words & asked), 2) / 2
    points += min(len(words - asked) / len(words), 0.5) * 2 if words else 0  # an echo of the question is no answer
    enough = min(len(spoken) / WORDS, 1.0)
    return round(points * enough - 4 * repetition(spoken), 4)


def ends_properly(answer: str) -> float:
    """1 if the last sentence is finished; a question back is worth half, and a list that was broken off nothing."""
    end = re.search(r"([.!?])[\"'”’)\]*]*$", answer.rstrip())
    if end is None or re.search(r"^\s*\d+\.\Z", answer.rstrip(), re.MULTILINE):
        return 0.0
    return 0.5 if end[1] == "?" else 1.0


def brevity(count: int) -> float:
    """1 for up to three sentences, and half a point less for each one more, down to -1."""
    return max(1.0 - 0.5 * max(count - SENTENCES, 0), -1.0)


def sentences(answer: str) -> int:
    """How many sentences it has; a line of a list counts as one at least, and its number or dash as none."""
    lines = (re.sub(r"^\s*(\d+[.)]|[-*•#]+)\s*", "", line) for line in answer.splitlines())
    return sum(bool(part.strip()) for line in lines for part in re.split(r"(?<=[.!?])[\"'”’)\]*]*\s+", line))


def repetition(spoken: Sequence[str]) -> float:
    """The fraction of the answer's pairs of neighbouring words that it has said before, beyond a tenth."""
    pairs = list(pairwise(spoken))
    return max(1 - len(set(pairs)) / len(pairs) - 0.1, 0.0) if pairs else 0.0


def content_words(text: str) -> set[str]:
    """The words that carry a text, without a plural's s."""
    found = re.findall(r"[^\W\d_]{3,}|\d+", text.lower())
    return {word.removesuffix("s") for word in found if not SMALL_WORDS.fullmatch(word)}


def said(text: Any) -> str:
    """The text of a plain string, or the last message of a chat."""
    return text if isinstance(text, str) else str(text[-1]["content"])
