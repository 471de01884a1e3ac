"""Paired statistics over prompts: how sure a difference is, and how often one side wins; nothing about models or text.

Every array is (prompts,), one mean over a prompt's samples, in the same order of prompts on both sides.
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


def _paired(before: Array, after: Array) -> tuple[Array, Array]:
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if before.shape != after.shape:
        raise ValueError(f"paired values of different shapes, {before.shape} before and {after.shape} after")
    if not before.size:
        raise ValueError("paired values: no prompts to compare")
    return before, after
