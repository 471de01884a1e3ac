"""The scores of samples by a reward of any kind: one finite number for each, or an error that names the text."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.errors import ScoreError
from alignment.rewards.protocol import Progress, Reward, Scores


def score(kind: Reward, folder: Path, samples: Sequence[Mapping[str, Any]], progress: Progress | None = None) -> Scores:
    """What `kind.score` gives, as plain numbers.

    Raises ScoreError where there are more or fewer than samples, or one is NaN or infinite.
    """
    found = kind.score(folder, samples, progress)
    values = [float(value) for value in found.values]
    if len(values) != len(samples):
        raise ScoreError(
            f"reward: {type(kind).__name__} gave {len(values)} scores for {len(samples)} samples; it has to give one "
            "for each, in their order"
        )
    require_finite(values, [sample["text"] for sample in samples])
    return Scores(values, found.truncated)


def require_finite(values: Sequence[float], texts: Sequence[str]) -> None:
    """Raise ScoreError, naming the first text, where a score is NaN or infinite."""
    bad = [index for index, value in enumerate(values) if not math.isfinite(value)]
    if bad:
        raise ScoreError(
            f"reward: {len(bad)} of {len(values)} scores are not finite, the first for {texts[bad[0]][:80]!r}; "
            "check the reward model's weights or precision, or the reward's code"
        )
