"""The scores of samples by a reward of any kind: a finite number or none for each, or an error that names the text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from alignment.errors import ScoreError
from alignment.rewards.protocol import Reward, Scores, Scoring


def score(kind: Reward, samples: Sequence[Mapping[str, Any]], work: Scoring) -> Scores:
    """What `kind.score` gives, as plain numbers, and None for a sample without a score.

    Raises ScoreError where there are more or fewer than samples, or one is NaN or infinite.
    """
    found = kind.score(samples, work)
    texts = [sample["text"] for sample in samples]
    name = type(kind).__name__
    parts = {part: _plain(values, texts, f"{name}, {part},") for part, values in found.parts.items()}
    return replace(found, values=_plain(found.values, texts, name), parts=parts)


def _plain(values: Sequence[float | None], texts: Sequence[str], name: str) -> list[float | None]:
    plain = [None if value is None else float(value) for value in values]
    if len(plain) != len(texts):
        raise ScoreError(
            f"reward: {name} gave {len(plain)} scores for {len(texts)} samples; it has to give one for each, in their "
            "order"
        )
    require_finite(plain, texts)
    return plain


def require_most(values: Sequence[float | None], name: str) -> None:
    """Raise ScoreError where more than half of the samples have no score: what is left says too little of the model."""
    missing = sum(value is None for value in values)
    if 2 * missing > len(values):
        raise ScoreError(
            f"reward: {name} gave no score for {missing} of {len(values)} samples, which is more than half; find out "
            "why (a judge's answers are kept, a function's None is its own), and run again"
        )


def require_finite(values: Sequence[float | None], texts: Sequence[str]) -> None:
    """Raise ScoreError, naming the first text, where a score is NaN or infinite."""
    bad = [index for index, value in enumerate(values) if value is not None and not math.isfinite(value)]
    if bad:
        raise ScoreError(
            f"reward: {len(bad)} of {len(values)} scores are not finite, the first for {texts[bad[0]][:80]!r}; "
            "check the reward model's weights or precision, or the reward's code"
        )
