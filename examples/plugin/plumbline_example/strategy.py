"""The strategy `best_vs_second`: the two best samples of a prompt, the narrowest gap at the top."""

import random
from collections.abc import Iterator, Sequence

from alignment.data.pairs import Indices, strategy


@strategy("best_vs_second")
def best_vs_second(scores: Sequence[float], _: random.Random) -> Iterator[Indices]:
    """The best sample against the second best: one pair."""
    first, second, *_others = sorted(range(len(scores)), key=lambda index: -scores[index])
    yield first, second
