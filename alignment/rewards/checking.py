"""The scores of samples by a reward of any kind: a finite number or none for each, or an error that names the text."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from alignment.errors import ScoreError
from alignment.rewards.protocol import Batches, InBatches, Reward, Scores, Scoring
from alignment.stages.job import share


def score(kind: Reward, samples: Sequence[Mapping[str, Any]], work: Scoring) -> Scores:
    """What `kind.score` gives, as plain numbers, and None for a sample without a score.

    Raises ScoreError where there are more or fewer than samples, or one is NaN or infinite.
    """
    return _checked(kind, kind.score(samples, work), len(samples), lambda: samples)


def score_batches(kind: Reward, batches: Batches, work: Scoring) -> Generator[Scores]:
    """The same of each batch; whoever stops before the end has to close it."""
    lengths: list[int] = []

    def watched() -> Iterator[Sequence[Mapping[str, Any]]]:
        for number, samples in enumerate(batches):
            lengths[number:] = lengths[number:] or [len(samples)]
            yield samples

    seen = replace(batches, go=watched)
    done = 0
    with closing(
        kind.score_batches(seen, work) if isinstance(kind, InBatches) else _in_turn(kind, seen, work)
    ) as found:
        for number, scores in enumerate(found):
            yield _checked(kind, scores, lengths[number], partial(_batch, batches, number))
            done += lengths[number]
    if done < batches.samples:
        raise ScoreError(
            f"reward: {type(kind).__name__} gave {batches.samples - done} of {batches.samples} samples no score"
        )


def _batch(batches: Batches, number: int) -> Sequence[Mapping[str, Any]]:
    return next(islice(batches, number, None))


def _in_turn(kind: Reward, batches: Batches, work: Scoring) -> Generator[Scores]:
    done = 0
    for samples in batches:
        progress = work.progress and share(work.progress, done, len(samples), batches.samples)
        yield kind.score(samples, replace(work, progress=progress))
        done += len(samples)


def _checked(kind: Reward, found: Scores, length: int, samples: Callable[[], Sequence[Mapping[str, Any]]]) -> Scores:
    name = type(kind).__name__
    parts = {part: _plain(values, length, samples, f"{name}, {part},") for part, values in found.parts.items()}
    return replace(found, values=_plain(found.values, length, samples, name), parts=parts)


def _plain(
    values: Sequence[float | None], length: int, samples: Callable[[], Sequence[Mapping[str, Any]]], name: str
) -> list[float | None]:
    plain = [None if value is None else float(value) for value in values]
    if len(plain) != length:
        raise ScoreError(
            f"reward: {name} gave {len(plain)} scores for {length} samples; it has to give one for each, in their order"
        )
    if not all(value is None or math.isfinite(value) for value in plain):
        require_finite(plain, [sample["text"] for sample in samples()])
    return plain


def require_most(missing: int, samples: int, name: str) -> None:
    """Raise ScoreError where more than half of the samples have no score: what is left says too little of the model."""
    if 2 * missing > samples:
        raise ScoreError(
            f"reward: {name} gave no score for {missing} of {samples} samples, which is more than half; find out "
            "why (a judge's answers are kept, a function's None is its own), and run again"
        )


def require_finite(values: Sequence[float | None], texts: Sequence[str]) -> None:
    """Raise ScoreError, naming the first text, where a score is NaN or infinite."""
    bad = [index for index, value in enumerate(values) if value is not None and not math.isfinite(value)]
    if bad:
        raise ScoreError(
            f"reward: {len(bad)} of {len(values)} scores are not finite, the first for {texts[bad[0]][:80]!r}; "
            "check the reward model's weights or precision, or the reward's code"
        )
