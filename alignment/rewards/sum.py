"""The reward `sum`: several rewards, weighted, each one's scores kept."""

import math
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from alignment.config import AlignConfig
from alignment.errors import ScoreError
from alignment.kinds import REWARDS
from alignment.rewards.checking import score_batches
from alignment.rewards.parts import alone, part_folder
from alignment.rewards.protocol import Batches, InBatches, Progress, Scores, Scoring, reward


@reward("sum")
class Sum(InBatches):
    """Adds up the parts of `reward.parts`; a sample that one of them gives no score has none."""

    def __init__(self, config: AlignConfig) -> None:
        """`reward.parts` names the rewards, their weights, and which of them are divided by their SD."""
        self.config = config

    def score_batches(self, batches: Batches, work: Scoring) -> Generator[Scores]:
        """Each sample's weighted sum, the parts as they were before, and the SDs that some were divided by.

        The SDs are those of all these samples unless `work.scales` has them: a part scores all of them, and then the
        next one does. Raises ScoreError where one is 0, and what the parts' kinds raise.
        """
        parts = self.config.reward.parts
        values: dict[str, NDArray[np.float64]] = {}
        truncated: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        ends = np.zeros(0, np.int64)
        for number, part in enumerate(parts):
            kind = REWARDS.get(part.kind)(alone(self.config, part))
            progress = _share(work.progress, number, len(parts))
            folder = part_folder(work.folder, part.name)
            found: list[NDArray[np.float64]] = []
            for scores in score_batches(kind, batches, replace(work, folder=folder, progress=progress)):
                found.append(np.array(scores.values, np.float64))  # None becomes NaN, which no score is
                truncated[part.name] += scores.truncated
                counts.update({f"{part.name}_{what}": n for what, n in scores.counts.items()})
            ends = np.cumsum([len(each) for each in found])
            values[part.name] = np.concatenate(found) if found else np.zeros(0)
        wanted = [part.name for part in parts if part.normalise]
        scales = {name: work.scales[name] if work.scales else sd(name, values[name]) for name in wanted}
        total = np.zeros(ends[-1] if len(ends) else 0)
        for part in parts:
            total += part.weight / scales.get(part.name, 1.0) * values[part.name]
        for number, (first, last) in enumerate(pairwise([0, *ends.tolist()]), 1):
            rows, is_last = slice(first, last), number == len(ends)
            yield Scores(
                _plain(total[rows]),
                truncated=max(truncated.values()) if is_last else 0,
                parts={name: _plain(scores[rows]) for name, scores in values.items()},
                counts=dict(counts) if is_last else {},
                scales=scales,
            )


def sd(name: str, scores: NDArray[np.float64]) -> float:
    """The sample standard deviation of the scores that there are. Raises ScoreError where it is 0, or they are few."""
    known = scores[~np.isnan(scores)]
    found = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    if not found:
        raise ScoreError(
            f"reward.parts: {name} gives {len(known)} of the base's samples scores that do not differ, so it cannot be "
            "divided by their SD; set its normalise to false, or leave it out"
        )
    return found


def _plain(scores: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(score) else score for score in scores.tolist()]


def _share(progress: Progress | None, number: int, parts: int) -> Progress | None:
    return progress and (lambda done, total: progress(number * total + done, parts * total))
