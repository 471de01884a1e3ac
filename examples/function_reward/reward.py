"""Rewards as Python functions, called as TRL's trainers call theirs; `flows/configs/function_reward.yaml` uses them."""

import re
from typing import Any

WORD = re.compile(r"[a-z']+")
PRAISE = set(
    WORD.findall("clever warm funny lovely moving superb witty sharp tender elegant vivid rich charming fresh")
)
BLAME = set(
    WORD.findall("dull bland clumsy awful tired lazy silly flat stale cheap empty weak ugly dreary tedious boring")
)


def reward(completions: list[Any], **_: Any) -> list[float | None]:
    """Words of praise minus words of blame, per ten words; None for a text without words, which nobody can judge."""
    return [_praise(_text(completion)) for completion in completions]


def brief(completions: list[Any], **_: Any) -> list[float]:
    """Minus the number of words, in tens."""
    return [-len(_words(_text(completion))) / 10 for completion in completions]


def right(completions: list[Any], solution: list[str], **_: Any) -> list[float | None]:
    """1 where the text holds the row's `solution`, a column that `data.columns` names, else 0; None without one."""
    return [
        None if wanted is None else float(wanted in _text(completion))
        for completion, wanted in zip(completions, solution, strict=True)
    ]


def _praise(text: str) -> float | None:
    words = _words(text)
    if not words:
        return None
    return 10 * sum((word in PRAISE) - (word in BLAME) for word in words) / len(words)


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _text(completion: Any) -> str:
    """A completion's text: of a chat it is a list with the assistant's message."""
    return completion if isinstance(completion, str) else completion[-1]["content"]
