"""Scoring by a classifier beside `transformers.pipeline`: the same model and texts of 20 to 120 tokens, read from text.

    python -m benchmarks.score

The pipeline has the best of three batch sizes.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import models
from benchmarks.measure import Row, Side, race, run

PIPELINE = "pipeline"
BATCHES = (1, 16, 64)
TARGET = "2"


@dataclass(frozen=True)
class Case:
    """A DistilBERT, how many texts each side scores in a round, and their lengths in tokens."""

    name: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    texts: int
    shortest: int = 20
    longest: int = 120


CASES = [
    Case("quickstart's, 2 layers of 64", 2, 64, 2, 1_024, 2_048, 40, 64),
    Case("small, 4 layers of 256", 4, 256, 4, 8_000, 512),
    Case("DistilBERT, 6 layers of 768", 6, 768, 12, 30_522, 96),
]


def compare(case: Case, rounds: int) -> list[Row]:
    """The row of a case, in texts per second."""
    model = models.distilbert(case.layers, case.width, case.heads, case.vocabulary)
    tokenizer = models.tokenizer(case.vocabulary, begins=True)
    texts = models.texts(case.vocabulary, case.texts, case.shortest, case.longest)
    peers = {PIPELINE: [pipeline(model, tokenizer, texts, rows) for rows in BATCHES]}
    return race(case.name, "texts/s", ours(model, tokenizer, texts), peers, targets={PIPELINE: TARGET}, rounds=rounds)


def ours(model: Any, tokenizer: Any, texts: list[str]) -> Side:
    """Plumbline, which finds its batches itself."""
    from alignment.models import Loaded
    from alignment.rewards.classifier import score_texts

    loaded = Loaded(model, tokenizer)
    return Side("Plumbline", lambda _: len(score_texts(loaded, texts, column=1)))


def pipeline(model: Any, tokenizer: Any, texts: list[str], rows: int) -> Side:
    """`transformers.pipeline` on so many texts at once."""
    from transformers import pipeline as made

    reads = made("text-classification", model=model, tokenizer=tokenizer, device=model.device)
    return Side(f"batch {rows}", lambda _: len(reads(texts, batch_size=rows, function_to_apply="none", top_k=None)))


def measure(asked: argparse.Namespace) -> Iterator[Row]:
    """All rows."""
    for case in CASES:
        if asked.only in case.name:
            yield from compare(case, asked.rounds)


if __name__ == "__main__":
    run(__doc__, measure, rounds=5)
