"""The judge `tfidf`: the log-odds of the positive class by a text's words, whatever their order."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignment.config import AlignConfig
from alignment.judging.judges.words import Array, words
from alignment.rewards.protocol import Scores, Scoring, reward
from alignment.rewards.tfidf_model import VOCABULARY, WEIGHTS


@reward(
    "tfidf",
    labels=False,
    given=False,
    note="reads which words a text has and not their order, so that word salad deceives it like the reward",
)
class Tfidf:
    """Scores texts by the weights that `tfidf_model` found."""

    def __init__(self, config: AlignConfig) -> None:
        """`reward.reads` may be `completion`; whatever else it is, the whole text is read."""
        self.reads = "completion" if config.reward.reads == "completion" else "text"
        self._read: dict[Path, Weights] = {}

    def score(self, samples: Sequence[Mapping[str, Any]], work: Scoring) -> Scores:
        """The log-odds of each sample."""
        if work.folder not in self._read:
            self._read = {work.folder: Weights(work.folder)}
        weights = self._read[work.folder]
        return Scores([weights.log_odds(sample[self.reads]) for sample in samples])


class Weights:
    """What was learnt, as it is on disk."""

    def __init__(self, folder: Path) -> None:
        """Read it; nothing in it is code."""
        vocabulary = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        self.columns = {word: column for column, word in enumerate(vocabulary)}
        with np.load(folder / WEIGHTS, allow_pickle=False) as held:
            self.idf: Array = held["idf"]
            self.weights: Array = held["weights"]
            self.intercept = float(held["intercept"])

    def log_odds(self, text: str) -> float:
        """w x + b, in nats, where x is (1 + ln count) idf of each known word, divided by its Euclidean length."""
        counts = Counter(column for word in words(text) if (column := self.columns.get(word)) is not None)
        columns = np.array(sorted(counts), dtype=np.int64)
        values = (1.0 + np.log([counts[column] for column in columns.tolist()])) * self.idf[columns]
        length = float(np.linalg.norm(values))
        return float(values @ self.weights[columns]) / length + self.intercept if length else self.intercept
