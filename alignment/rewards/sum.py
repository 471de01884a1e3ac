"""The reward `sum`: several rewards, weighted, each one's scores kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alignment.config import AlignConfig
from alignment.errors import ScoreError
from alignment.kinds import REWARDS
from alignment.rewards.checking import score
from alignment.rewards.parts import alone, part_folder
from alignment.rewards.protocol import Progress, Scores, Scoring, reward


@reward("sum")
class Sum:
    """Adds up the parts of `reward.parts`; a sample that one of them gives no score has none."""

    def __init__(self, config: AlignConfig) -> None:
        """`reward.parts` names the rewards, their weights, and which of them are divided by their SD."""
        self.config = config

    def score(self, samples: Sequence[Mapping[str, Any]], work: Scoring) -> Scores:
        """Each sample's weighted sum, the parts as they were before, and the SDs that some were divided by.

        The SDs are those of these samples unless `work.scales` has them. Raises ScoreError where one is 0, and what
        the parts' kinds raise.
        """
        parts = self.config.reward.parts
        found: dict[str, Scores] = {}
        for number, part in enumerate(parts):
            kind = REWARDS.get(part.kind)(alone(self.config, part))
            progress = _share(work.progress, number, len(parts))
            found[part.name] = score(
                kind, samples, replace(work, folder=part_folder(work.folder, part.name), progress=progress)
            )
        values = {name: scores.values for name, scores in found.items()}
        wanted = [part.name for part in parts if part.normalise]
        scales = {name: work.scales[name] if work.scales else sd(name, values[name]) for name in wanted}
        weights = [part.weight / scales.get(part.name, 1.0) for part in parts]
        return Scores(
            [add(row, weights) for row in zip(*values.values(), strict=True)],
            truncated=max(scores.truncated for scores in found.values()),
            parts=values,
            counts={f"{name}_{what}": n for name, scores in found.items() for what, n in scores.counts.items()},
            scales=scales,
        )


def add(scores: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """The weighted sum of one sample's scores; None where one of them is."""
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return None
    return sum(weight * score for weight, score in zip(weights, known, strict=True))


def sd(name: str, scores: Sequence[float | None]) -> float:
    """The sample standard deviation of the scores that there are. Raises ScoreError where it is 0, or they are few."""
    known = [score for score in scores if score is not None]
    found = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    if not found:
        raise ScoreError(
            f"reward.parts: {name} gives {len(known)} of the base's samples scores that do not differ, so it cannot be "
            "divided by their SD; set its normalise to false, or leave it out"
        )
    return found


def _share(progress: Progress | None, number: int, parts: int) -> Progress | None:
    return progress and (lambda done, total: progress(number * total + done, parts * total))
