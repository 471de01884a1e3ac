"""What holds of one pair, as masks over a frame's rows; nothing here knows Great Expectations.

Every mask is boolean, has the frame's index, and is False where a value is missing or of another type. Only a pair
without any score passes what is asked of scores. The frame's columns count by position, named in each docstring.
"""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from expectations.columns import SCORES

Mask: TypeAlias = "pd.Series[bool]"

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BROKEN_UNICODE = re.compile("[\ufffd\ud800-\udfff]")


def complete(rows: pd.DataFrame) -> Mask:
    """No value of the row is null; both scores together, and then the gap, may be, known by their columns' names."""
    nulls = rows.isna()
    names = [name for name in SCORES if name in rows]
    scores = nulls[names]
    unscored = scores[[name for name in names if name != "gap"]].all(axis=1)
    return ~nulls.drop(columns=names).any(axis=1) & (~scores.any(axis=1) | unscored)


def gap_at_least(rows: pd.DataFrame, min_gap: float) -> Mask:
    """Columns chosen score, rejected score, and perhaps gap: the gap, in units of the reward, is `min_gap` or more.

    It is the difference of the scores, or the third column where there are none; holds where that is missing too.
    """
    chosen, rejected, *given = _numbers(rows)
    with np.errstate(invalid="ignore"):  # the gap of two infinite scores is NaN, and fails
        gap = chosen - rejected
    unscored = _missing(rows.iloc[:, :2])
    if given:
        gap = np.where(unscored, given[0], gap)
    return pd.Series((gap >= min_gap) | _missing(rows), index=rows.index)


def finite(rows: pd.DataFrame) -> Mask:
    """Every number of the row is finite, or all of them are missing."""
    return pd.Series(np.isfinite(_numbers(rows)).all(axis=0) | _missing(rows), index=rows.index)


def ratio_at_most(rows: pd.DataFrame, max_ratio: float) -> Mask:
    """Two columns of lengths: the longer over the shorter is `max_ratio` or less; a length of 0 fails."""
    first, second = _numbers(rows)
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    return pd.Series((shorter > 0) & (longer <= max_ratio * shorter), index=rows.index)


def starts_with_first(rows: pd.DataFrame) -> Mask:
    """Columns prompt, then texts: every text begins with the prompt."""
    return _texts(rows, lambda prompt, *texts: all(text.startswith(prompt) for text in texts))


def not_blank_after_first(rows: pd.DataFrame) -> Mask:
    """Columns prompt, then texts: what each text holds after the prompt is more than white space."""
    return _texts(rows, lambda prompt, *texts: all(text.removeprefix(prompt).strip() for text in texts))


def without_control(rows: pd.DataFrame) -> Mask:
    r"""No text holds a control character (Unicode category Cc) other than \n, \t and \r."""
    return _texts(rows, lambda *texts: not any(map(_CONTROL.search, texts)))


def whole_unicode(rows: pd.DataFrame) -> Mask:
    """No text holds U+FFFD or a lone surrogate, the traces of a character cut in two."""
    return _texts(rows, lambda *texts: not any(map(_BROKEN_UNICODE.search, texts)))


def differ(rows: pd.DataFrame) -> Mask:
    """Columns chosen text, rejected text, chosen ids, rejected ids: neither the texts nor the ids are equal."""

    def test(chosen: Any, rejected: Any, chosen_ids: Any, rejected_ids: Any) -> bool:
        if any(map(_is_null, (chosen, rejected, chosen_ids, rejected_ids))):
            return False
        return bool(chosen != rejected and tuple(chosen_ids) != tuple(rejected_ids))

    return _each(rows, test)


def _missing(rows: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Of which rows no value is there."""
    return rows.isna().all(axis=1).to_numpy(bool)


def _numbers(rows: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The frame as floats, shape (columns, rows); NaN where a value is no number."""
    columns = [pd.to_numeric(rows[name], errors="coerce").to_numpy(np.float64, na_value=np.nan) for name in rows]
    return np.stack(columns)


def _texts(rows: pd.DataFrame, test: Callable[..., bool]) -> Mask:
    return _each(rows, lambda *values: all(isinstance(value, str) for value in values) and test(*values))


def _each(rows: pd.DataFrame, test: Callable[..., bool]) -> Mask:
    return pd.Series(
        [test(*values) for values in zip(*(rows[name] for name in rows), strict=True)], index=rows.index, dtype=bool
    )


def _is_null(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)
