"""The model of the judge `tfidf`: logistic regression on the TF-IDF of a text's words, trained here on labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignment.errors import DataError
from alignment.judging.judges.words import words
from alignment.rewards.protocol import reward_model
from alignment.rows import TEXTS
from alignment.stages.job import Counts, Job
from alignment.stages.store import write_json

VOCABULARY = "vocabulary.json"
"""The words, in the order of the weights."""

WEIGHTS = "weights.npz"
"""`idf` and `weights`, one of each word, and `intercept`."""

MOST_WORDS = 100_000


@reward_model("tfidf", context=False)
def tfidf_model(job: Job) -> Counts:
    """The vocabulary and the weights. Raises DataError unless the labelled texts are of both classes."""
    rows = [row for row in TEXTS.read(job.inputs["texts"]) if row["label"] >= 0]
    fit([row["text"] for row in rows], [row["label"] for row in rows], job.out)
    return {"texts": len(rows)}


def fit(texts: Sequence[str], labels: Sequence[int], folder: Path) -> None:
    """Write what is learnt from texts with labels 1 and 0 to a folder, as numbers and JSON."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if set(labels) != {0, 1}:
        raise DataError(
            f"evaluation.gold: the kind tfidf learns from texts of two classes, and of the {len(texts):,} that it may "
            f"learn from {sum(labels):,} are positive; give more texts, or raise evaluation.gold_fraction"
        )
    terms = TfidfVectorizer(analyzer=words, sublinear_tf=True, max_features=MOST_WORDS)
    try:
        columns = terms.fit_transform(texts)
    except ValueError as error:
        raise DataError("evaluation.gold: the kind tfidf found no word in the texts; take another kind") from error
    found = LogisticRegression(C=10.0, solver="liblinear", max_iter=1_000).fit(columns, labels)
    write_json(folder / VOCABULARY, terms.get_feature_names_out().tolist())
    np.savez(folder / WEIGHTS, idf=terms.idf_, weights=found.coef_[0], intercept=found.intercept_[0])
