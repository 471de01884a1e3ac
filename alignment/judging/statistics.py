"""Paired statistics over prompts: how sure a difference is, and how often one side wins; nothing about models or text.

Every array is (prompts,), one mean over a prompt's samples, in the same order of prompts on both sides, unless said
otherwise.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_CHUNK = 1 << 22  # draws held at once: 32 MB of indices and as much of values


def paired_bootstrap(differences: Array, resamples: int, confidence: float, seed: int) -> tuple[float, float]:
    """Percentile confidence interval of the mean difference (Efron & Tibshirani 1993, chapter 13).

    Whole prompts are drawn with replacement, so both sides of a prompt stay together. (nan, nan) where a difference is
    not finite. Raises ValueError below two differences, which would give an interval of no width.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if differences.size < 2:
        raise ValueError(f"paired_bootstrap: {differences.size} differences, give one for each of two or more prompts")
    if not np.isfinite(differences).all():
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _CHUNK // differences.size)
    for start in range(0, resamples, rows):
        chunk = means[start : start + rows]
        chunk[:] = differences[rng.integers(differences.size, size=(chunk.size, differences.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def wins(before: Array, after: Array) -> Array:
    """For each prompt 1 where `after` is higher, 0 where `before` is, one half for a tie, nan where either is nan."""
    before, after = _paired(before, after)
    outcome = 0.5 * (1.0 + (after > before) - (after < before))
    return np.where(np.isnan(before) | np.isnan(after), np.nan, outcome)


def win_rate(before: Array, after: Array) -> float:
    """Fraction of prompts on which `after` is higher, ties counted one half: win_rate(a, b) + win_rate(b, a) = 1."""
    return float(wins(before, after).mean())


def length_matched_win_rate(
    before: Array, after: Array, length_before: Array, length_after: Array, tolerance: float = 0.1
) -> float | None:
    """Win rate over the prompts whose mean lengths (tokens) differ by at most `tolerance` of the longer; None if none.

    Separates a better text from one that earns its reward by being longer.
    """
    length_before, length_after = _paired(length_before, length_after)
    outcome = wins(before, after)
    if outcome.size != length_before.size:
        raise ValueError(f"length_matched_win_rate: {outcome.size} scores and {length_before.size} lengths")
    matched = np.abs(length_after - length_before) <= tolerance * np.maximum(length_before, length_after)
    return float(outcome[matched].mean()) if matched.any() else None


def gain_at_equal_length(
    prompt: npt.NDArray[np.integer],
    is_after: npt.NDArray[np.bool_],
    values: Array,
    lengths: Array,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[float, tuple[float, float]] | None:
    """The mean difference after minus before that length does not explain, with its interval; None if it may be all.

    Arrays are (samples,); `prompt` numbers the prompts from 0, each with samples on both sides. It is the coefficient g
    of `is_after` in the least-squares fit value = prompt's own level + g · is_after + slope · length. Levels of their
    own keep prompts with long and good texts on both sides from passing for an effect of length, and `is_after` keeps
    what both sides differ in from doing so: the slope is that of samples of one side to one prompt, and of prompts on
    which lengths changed by more than on others. One slope serves both sides. Each side of a prompt weighs the same
    however many samples it has, so that g = mean difference − slope · mean difference of the lengths.

    The percentile bootstrap draws whole prompts, and fits the slope anew for each draw (Cameron, Gelbach and Miller
    2008, pairs cluster bootstrap). (nan, nan) where a value is not finite. None where no length differs beyond what
    `is_after` tells, but for lengths that are all the same: then it is the mean difference itself.
    """
    cells = 2 * prompt + is_after
    weights = 1.0 / np.bincount(cells)[cells]
    sides = [np.bincount(cells, weights * column).reshape(-1, 2) for column in (values, lengths)]
    gain, growth = (side[:, 1] - side[:, 0] for side in sides)
    value, length = (column - side.mean(axis=1)[prompt] for column, side in zip((values, lengths), sides, strict=True))
    products = [np.bincount(prompt, weights * length * column) for column in (length, value)]
    sums = np.stack([np.ones_like(gain), gain, growth, *products], axis=1)  # of each prompt: a fit needs their totals
    if not np.isfinite(sums).all():
        return float("nan"), (float("nan"), float("nan"))
    found = float(_gain_of(sums.sum(axis=0)))
    if np.isnan(found):
        return None
    rng, rows, count = np.random.default_rng(seed), max(1, _CHUNK // gain.size), gain.size
    drawn = [
        _gain_of(rng.multinomial(count, np.full(count, 1 / count), size=min(rows, resamples - start)) @ sums)
        for start in range(0, resamples, rows)
    ]
    low, high = np.nanquantile(np.concatenate(drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return found, (float(low), float(high))


def _gain_of(totals: Array) -> Array:
    """The coefficient of `is_after`, of totals over prompts, (..., 5); nan where the slope cannot be told.

    They solve the normal equations: 1, gain and growth of the length; length² and length · value within prompts.
    """
    count, gain, growth, squares, products = np.moveaxis(totals, -1, 0)
    spread, covered = squares - growth**2 / count / 2, products - growth * gain / count / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(spread > 1e-9 * squares, covered / spread, np.where(squares > 0, np.nan, 0.0))
    return np.asarray((gain - slope * growth) / count)


def _paired(before: Array, after: Array) -> tuple[Array, Array]:
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if before.shape != after.shape:
        raise ValueError(f"paired values of different shapes, {before.shape} before and {after.shape} after")
    if not before.size:
        raise ValueError("paired values: no prompts to compare")
    return before, after
