"""How well a classifier tells real texts from generated ones: 0.5 is not at all, 1 is always.

It is fitted to the very texts that it has to tell apart, never to the one that it judges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from alignment.judging.judges.words import Array, Ids, Passages, spans

FOLDS = 5


@dataclass(frozen=True, eq=False)
class Told:
    """What classifiers say of N generated texts, each by one that was fitted without it and its prompt.

    `real_probabilities` and `outranked` are (texts,), nan for one that was not judged. `outranked` is the share of real
    texts, held out with it, that look more real; its mean is the AUC of the folds (Mann-Whitney, ties one half).
    """

    real_probabilities: Array
    outranked: Array
    accuracy: float  # of both kinds, at a probability of one half

    @property
    def auc(self) -> float:
        """The probability that a real text looks more real than a generated one; nan where none was judged."""
        judged = self.outranked[~np.isnan(self.outranked)]
        return float(judged.mean()) if judged.size else float("nan")


def tell_apart(real: Sequence[str], generated: Passages, groups: Sequence[Any] | None = None, *, seed: int = 0) -> Told:
    """Cross-fit classifiers to real against generated texts, cut to like lengths and to like distances from the start.

    Generated texts of one group, such as a prompt's, are in one fold; as many real texts are drawn as there are
    generated ones, or fewer of these are judged. The classifiers are logistic regressions on TF-IDF of one and two
    words and of one to four characters. Nothing is judged where the texts that have a word are of one group.
    """
    from sklearn.model_selection import GroupKFold

    rng = np.random.default_rng(seed)
    count = len(generated.texts)
    names = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    judged = np.sort(rng.permutation(count)[: len(real)])
    drawn = [real[index] for index in rng.permutation(len(real))[: len(judged)].tolist()]
    pieces = like_pieces(drawn, generated, judged)
    numbers = np.array([number for number, _, _ in pieces], dtype=np.int64)
    probabilities, outranked = np.full(count, np.nan), np.full(count, np.nan)
    folds = min(FOLDS, len(np.unique(names[numbers])))
    if folds < 2:
        return Told(probabilities, outranked, np.nan)
    terms = _terms([text for _, text, _ in pieces] + [text for _, _, text in pieces])
    right = 0
    for fitted, held_out in GroupKFold(folds, shuffle=True, random_state=seed).split(numbers, groups=names[numbers]):
        of_real, of_fake = _fold(terms, fitted, held_out)
        probabilities[numbers[held_out]] = of_fake
        outranked[numbers[held_out]] = placements(of_real, of_fake)
        right += int((of_real > 0.5).sum() + (of_fake <= 0.5).sum())
    return Told(probabilities, outranked, right / (2 * len(pieces)))


def like_pieces(real: Sequence[str], generated: Passages, numbers: Ids) -> list[tuple[int, str, str]]:
    """Pairs of a real and a generated text with as many words, as far from their text's start: (number, real, fake).

    The longest are paired with the longest, so that little is cut; a pair without a word left is left out.
    """
    places = {number: (spans(generated.texts[number]), generated.words_before(number)) for number in numbers.tolist()}
    by_length = sorted(places, key=lambda number: len(places[number][0]), reverse=True)
    reals = sorted(((text, spans(text)) for text in real), key=lambda each: len(each[1]), reverse=True)
    pieces = []
    for number, (text, at) in zip(by_length, reals, strict=False):
        own, before = places[number]
        last = min(len(own), len(at))
        if last > before:
            fake = generated.texts[number]
            pieces.append((number, text[at[before][0] : at[last - 1][1]], fake[own[before][0] : own[last - 1][1]]))
    return sorted(pieces)


def _terms(texts: Sequence[str]) -> Any:
    """How often each term is in each text: (texts, terms), sparse."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.pipeline import make_union

    words = CountVectorizer(analyzer=_words_and_pairs)
    characters = CountVectorizer(analyzer="char", ngram_range=(1, 4), lowercase=False)
    return make_union(words, characters).fit_transform(texts).tocsr()


def _words_and_pairs(text: str) -> list[str]:
    words = [text[first:last] for first, last in spans(text)]
    return words + [f"{one} {two}" for one, two in pairwise(words)]


def _fold(terms: Any, fitted: Ids, held_out: Ids) -> tuple[Array, Array]:
    """The probabilities that the held-out texts are real: of the real ones, of the generated ones."""
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pairs = terms.shape[0] // 2  # the real texts are above, the generated ones below
    classifier = make_pipeline(
        TfidfTransformer(sublinear_tf=True), LogisticRegression(C=10.0, solver="liblinear", max_iter=1_000)
    )
    classifier.fit(terms[np.concatenate([fitted, fitted + pairs])], np.repeat([1, 0], len(fitted)))
    found = classifier.predict_proba(terms[np.concatenate([held_out, held_out + pairs])])[:, 1]
    return found[: len(held_out)], found[len(held_out) :]


def placements(of_real: Array, of_fake: Array) -> Array:
    """For each generated text the share of real ones with a higher probability, ties one half."""
    ranked = np.sort(of_real)
    at_most = np.searchsorted(ranked, of_fake, side="right")
    below = np.searchsorted(ranked, of_fake, side="left")
    return 1.0 - (below + at_most) / (2 * len(ranked))
