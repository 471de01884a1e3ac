"""How fluent texts are to a trigram model of real texts: their perplexity, and the share of bigrams that it has seen.

The model shares neither weights, nor tokens, nor data with the model that is judged.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from alignment.judging.judges.words import Array, Ids, Passages, words

ORDER = 3
BITS = 20  # of a word's number: three of them fit into an int64
MASK = (1 << BITS) - 1
BEGIN, UNKNOWN = 0, 1
USUAL_DISCOUNT = 0.75  # where the texts are too few to estimate one


@dataclass(frozen=True, eq=False)
class Grams:
    """The n-grams of one n: a number for each (its words, 20 bits each), sorted, and how often it was counted.

    `contexts` are the n-grams without their last word, each with the sum of its counts and its number of n-grams.
    """

    keys: Ids
    counts: Ids
    contexts: Ids
    totals: Ids
    kinds: Ids
    discount: float

    @classmethod
    def of(cls, keys: Ids, counts: Ids) -> "Grams":
        """The n-grams of sorted, distinct keys; the discount is n1 / (n1 + 2 n2) (Ney et al. 1994)."""
        contexts, firsts = np.unique(keys >> BITS, return_index=True)
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        return cls(
            keys,
            counts,
            contexts,
            np.add.reduceat(counts, firsts),
            np.diff(firsts, append=len(keys)),
            once / (once + 2 * twice) if once and twice else USUAL_DISCOUNT,
        )

    def probabilities(self, keys: Ids, shorter: Array) -> Array:
        """Of each n-gram's last word after the others, given its probability after all but the first of them."""
        context = _find(self.contexts, keys >> BITS)
        known = context >= 0
        found = _find(self.keys, keys)
        counts = np.where(found >= 0, self.counts[found], 0)
        totals, kinds = self.totals[context], self.kinds[context]
        own = np.maximum(counts - self.discount, 0.0) + self.discount * kinds * shorter
        given: Array = np.where(known, own / totals, shorter)
        return given


@dataclass(frozen=True, eq=False)
class NgramModel:
    """An interpolated Kneser-Ney trigram model (Chen & Goodman 1998, section 2.7) over the words of real texts.

    A word that it never saw has a place of its own beside the known ones, as in KenLM, so that a spelling that was made
    up costs much. `seen` are the bigrams of the texts, sorted.
    """

    vocabulary: dict[str, int]
    levels: tuple[Grams, ...]  # of 1, 2 and 3 words; counts of the shorter ones are of distinct words before them
    seen: Ids

    def logprobs(self, keys: Ids) -> Array:
        """Of the last word of each trigram, in nats."""
        found: Array = np.full(len(keys), 1.0 / (len(self.vocabulary) + 1))
        for number, level in enumerate(self.levels, 1):
            found = level.probabilities(keys & ((1 << BITS * number) - 1), found)
        logprobs: Array = np.log(found)
        return logprobs


@dataclass(frozen=True, eq=False)
class Fluency:
    """What a model says of N passages; each column is (texts,), and a passage without a word has zeros."""

    logprobs: Array  # sum over the passage's words, in nats
    words: Ids
    bigrams: Ids  # pairs of words in a row, of which the second is the passage's own
    seen_bigrams: Ids  # those that stand in the real texts too

    @property
    def perplexity(self) -> float:
        """exp of minus the total log-prob over the total of words. Raises ValueError where there is no word."""
        return float(np.exp(-self.logprobs.sum() / _some(self.words, "words")))

    @property
    def seen_share(self) -> float:
        """Seen bigrams over all bigrams. Raises ValueError where there are none."""
        return float(self.seen_bigrams.sum()) / _some(self.bigrams, "bigrams")


def fit(texts: Iterable[str]) -> NgramModel:
    """A model of real texts; of more than a million different words, the rarest count as unknown.

    Raises ValueError where the texts have no two words in a row.
    """
    split = [words(text) for text in texts]
    counts = Counter(word for text in split for word in text)
    vocabulary = {word: number for number, (word, _) in enumerate(counts.most_common(MASK - UNKNOWN), UNKNOWN + 1)}
    ids = [_numbered(text, vocabulary) for text in split]
    keys, _, places = _trigrams(ids)
    bigrams = keys[places > 0] & ((1 << 2 * BITS) - 1)
    if not bigrams.size:
        raise ValueError(f"ngrams: no two words in a row in {len(split)} texts; give real texts of the domain")
    grams = Grams.of(*np.unique(keys, return_counts=True))
    levels = [grams]
    for number in range(ORDER - 1, 0, -1):
        grams = Grams.of(*np.unique(grams.keys & ((1 << BITS * number) - 1), return_counts=True))
        levels.insert(0, grams)
    return NgramModel(vocabulary, tuple(levels), np.unique(bigrams))


def score(model: NgramModel, passages: Passages) -> Fluency:
    """The passages' words under a model, each given the two before it, those of a prompt included."""
    ids, firsts = [], []
    for number, text in enumerate(passages.texts):
        ids.append(_numbered(words(text), model.vocabulary))
        firsts.append(passages.words_before(number))
    keys, owners, places = _trigrams(ids)
    own = places >= np.array(firsts, dtype=np.int64)[owners] if len(owners) else np.zeros(0, dtype=np.bool_)
    keys, owners, places = keys[own], owners[own], places[own]
    paired = places > 0
    seen = _find(model.seen, keys & ((1 << 2 * BITS) - 1)) >= 0
    count = len(ids)
    return Fluency(
        np.bincount(owners, weights=model.logprobs(keys), minlength=count).astype(np.float64),
        np.bincount(owners, minlength=count),
        np.bincount(owners[paired], minlength=count),
        np.bincount(owners[paired & seen], minlength=count),
    )


def _numbered(text: Sequence[str], vocabulary: dict[str, int]) -> Ids:
    return np.fromiter((vocabulary.get(word, UNKNOWN) for word in text), dtype=np.int64, count=len(text))


def _trigrams(texts: Sequence[Ids]) -> tuple[Ids, Ids, Ids]:
    """For each word of N texts its number behind those of the two before it, its text, and its place in that."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    padded = np.concatenate([np.zeros(0, dtype=np.int64), *(part for text in texts for part in (_BEFORE, text))])
    owners = np.repeat(np.arange(len(texts)), lengths)
    places = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    at = np.arange(len(owners)) + (owners + 1) * len(_BEFORE)
    return (padded[at - 2] << 2 * BITS) | (padded[at - 1] << BITS) | padded[at], owners, places


def _find(keys: Ids, wanted: Ids) -> Ids:
    """Where each wanted key stands among sorted keys; -1 for one that is none of them."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def _some(counts: Ids, what: str) -> int:
    total = int(counts.sum())
    if not total:
        raise ValueError(f"fluency: no {what} to judge in {len(counts)} texts")
    return total


_BEFORE = np.full(ORDER - 1, BEGIN, dtype=np.int64)
