"""The reward `brevity`: the closer to a number of words, the better; it needs no model."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignment.config import AlignConfig
from alignment.rewards.protocol import Scores, Scoring, reward


@reward("brevity")
class Brevity:
    """Minus the distance of a text's number of words from `reward.brevity.words`."""

    def __init__(self, config: AlignConfig) -> None:
        """Take the number of words from the configuration."""
        self.words = config.reward.brevity.words  # type: ignore[attr-defined] # a field that this package brings

    def score(self, samples: Sequence[Mapping[str, Any]], work: Scoring) -> Scores:
        """One score per sample; nothing was made for it, and nothing is kept."""
        return Scores([-abs(len(sample["text"].split()) - self.words) / self.words for sample in samples])
