"""The reward `none`: no score for any sample, where pairs are given and nothing is there to judge texts by."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignment.config import AlignConfig
from alignment.rewards.protocol import Scores, Scoring, reward


@reward("none")
class NoReward:
    """Leaves every sample without a score; the evaluation then goes by the held-out pairs and the text's fluency."""

    def __init__(self, config: AlignConfig) -> None:
        """It has no settings."""

    def score(self, samples: Sequence[Mapping[str, Any]], _: Scoring) -> Scores:
        """None for each."""
        return Scores([None] * len(samples))
