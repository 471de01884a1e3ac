"""The scores of samples by a reward of any kind: a finite number or none for each, or an error that names the text."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from alignment.errors import ScoreError
from alignment.rewards.protocol import Batches, InBatches, Reward, Scores, Scoring
from alignment.stages.job import share
from alignment.stages.kept import forget_model


@dataclass(frozen=True)
class _Batch:
    """The samples that scores are to be of: so many, and themselves, which are asked for where one is named.

    `of` says where among all they are, and is empty where they are all.
    """

    length: int
    samples: Callable[[], Sequence[Mapping[str, Any]]]
    of: str = ""


def score(kind: Reward, samples: Sequence[Mapping[str, Any]], work: Scoring) -> Scores:
    """What `kind.score` gives, as plain numbers, and None for a sample without a score.

    A model that it read is not kept. Raises ScoreError where there are more or fewer than samples, or one is NaN or
    infinite.
    """
    try:
        return _checked(kind, kind.score(samples, work), _Batch(len(samples), lambda: samples))
    finally:
        forget_model()


def score_batches(kind: Reward, batches: Batches, work: Scoring) -> Generator[Scores]:
    """The same of each batch; whoever stops before the end has to close it.

    Raises ScoreError too where there are more or fewer batches, or parts that not every batch has.
    """
    name, lengths = type(kind).__name__, list[int]()

    def watched() -> Iterator[Sequence[Mapping[str, Any]]]:
        for number, samples in enumerate(batches):
            lengths[number:] = lengths[number:] or [len(samples)]
            yield samples

    seen = replace(batches, go=watched)
    done, parts = 0, set[str]()
    with closing(
        kind.score_batches(seen, work) if isinstance(kind, InBatches) else _in_turn(kind, seen, work)
    ) as found:
        for number, scores in enumerate(found):
            if number >= len(lengths):
                raise ScoreError(
                    f"reward: {name} gave scores for {number + 1} batches and took {len(lengths)}; it has to give them "
                    "for each batch that it takes, in their order"
                )
            first, done = done, done + lengths[number]
            of = f" of samples {first + 1:,} to {done:,}"
            parts = parts if number else set(scores.parts)
            if other := sorted(parts ^ set(scores.parts)):
                raise ScoreError(
                    f"reward: {name} gave the scores{of} other parts than those before, such as {other[0]}; it has to "
                    "give the same parts for each batch, None where a sample has no score"
                )
            is_all = not first and done == batches.samples
            batch = _Batch(lengths[number], partial(_nth, batches, number), "" if is_all else of)
            yield _checked(kind, scores, batch)
    if done < batches.samples:
        raise ScoreError(f"reward: {name} gave {batches.samples - done} of {batches.samples} samples no score")


def _nth(batches: Batches, number: int) -> Sequence[Mapping[str, Any]]:
    return next(islice(batches, number, None))


def _in_turn(kind: Reward, batches: Batches, work: Scoring) -> Generator[Scores]:
    done = 0
    for samples in batches:
        progress = work.progress and share(work.progress, done, len(samples), batches.samples)
        yield kind.score(samples, replace(work, progress=progress))
        done += len(samples)


def _checked(kind: Reward, found: Scores, batch: _Batch) -> Scores:
    name = type(kind).__name__
    parts = {part: _plain(values, batch, f"{name}, {part},") for part, values in found.parts.items()}
    return replace(found, values=_plain(found.values, batch, name), parts=parts)


def _plain(values: Sequence[float | None], batch: _Batch, name: str) -> list[float | None]:
    plain = [None if value is None else float(value) for value in values]
    if len(plain) != batch.length:
        raise ScoreError(
            f"reward: {name} gave {len(plain)} scores for {batch.length} samples; it has to give one for each, in "
            "their order"
        )
    if not all(value is None or math.isfinite(value) for value in plain):
        require_finite(plain, [sample["text"] for sample in batch.samples()], of=batch.of)
    return plain


def require_most(missing: int, samples: int, name: str) -> None:
    """Raise ScoreError where more than half of the samples have no score: what is left says too little of the model."""
    if 2 * missing > samples:
        raise ScoreError(
            f"reward: {name} gave no score for {missing} of {samples} samples, which is more than half; find out "
            "why (a judge's answers are kept, a function's None is its own), and run again"
        )


def require_finite(values: Sequence[float | None], texts: Sequence[str], *, of: str = "") -> None:
    """Raise ScoreError, naming the first text, where a score is NaN or infinite; `of` says whose scores they are."""
    bad = [index for index, value in enumerate(values) if value is not None and not math.isfinite(value)]
    if bad:
        raise ScoreError(
            f"reward: {len(bad)} of {len(values)} scores{of} are not finite, the first for {texts[bad[0]][:80]!r}; "
            "check the reward model's weights or precision, or the reward's code"
        )
