"""What holds of one pair, as masks over a frame's rows; nothing here knows Great Expectations.

Every mask is boolean, has the frame's index, and is False where a value is missing or of another type. Only a pair
without any score passes what is asked of scores. The frame's columns count by position, named in each docstring. Texts
and lists of ids may be Arrow's (`pandas.ArrowDtype`), of which no Python objects are made, or any that pandas holds.
"""

from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from expectations import arrays
from expectations.arrays import Bools
from expectations.columns import SCORES

Mask: TypeAlias = "pd.Series[bool]"

_SPACE = "\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What `str.isspace` calls white space, for a regular expression."""


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
    return _mask(rows, (gap >= min_gap) | _missing(rows))


def finite(rows: pd.DataFrame) -> Mask:
    """Every number of the row is finite, or all of them are missing."""
    return _mask(rows, np.isfinite(_numbers(rows)).all(axis=0) | _missing(rows))


def ratio_at_most(rows: pd.DataFrame, max_ratio: float) -> Mask:
    """Two columns of lengths: the longer over the shorter is `max_ratio` or less; a length of 0 fails."""
    first, second = _numbers(rows)
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    return _mask(rows, (shorter > 0) & (longer <= max_ratio * shorter))


def starts_with_first(rows: pd.DataFrame) -> Mask:
    """Columns prompt, then texts: every text begins with the prompt."""
    prompt, *texts = _texts(rows)
    begin = arrays.known(prompt)
    for text in texts:
        begin &= arrays.begins(text, prompt)
    return _mask(rows, begin)


def not_blank_after_first(rows: pd.DataFrame) -> Mask:
    """Columns prompt, then texts: what each text holds after the prompt is more than white space."""
    prompt, *texts = _texts(rows)
    filled = arrays.known(prompt, *texts)
    for text in texts:
        filled &= arrays.matching(arrays.rests(text, prompt), f"[^{_SPACE}]")
    return _mask(rows, filled)


def without_control(rows: pd.DataFrame) -> Mask:
    r"""No text holds a control character (Unicode category Cc) other than \n, \t and \r."""
    texts = _texts(rows)
    clean = arrays.known(*texts)
    for text in texts:
        clean &= ~arrays.holding_control(text, allowed="\n\t\r")
        clean &= ~arrays.holding(text, 0xC2, (0x80, 0x9F))  # U+0080 to U+009F in UTF-8
    return _mask(rows, clean)


def whole_unicode(rows: pd.DataFrame) -> Mask:
    """No text holds U+FFFD or a lone surrogate, the traces of a character cut in two."""
    texts = _texts(rows)
    whole = arrays.known(*texts)
    for text in texts:
        whole &= ~arrays.holding(text, 0xEF, (0xBF, 0xBF), (0xBD, 0xBD))  # U+FFFD in UTF-8
    return _mask(rows, whole)


def differ(rows: pd.DataFrame) -> Mask:
    """Columns chosen text, rejected text, chosen ids, rejected ids: neither the texts nor the ids are equal."""
    chosen, rejected = _texts(rows.iloc[:, :2])
    ids = [arrays.ids(rows[name]) for name in rows.columns[2:]]
    bits = max(column.values.type.bit_width for column in ids)
    same = arrays.equal(chosen, rejected) | arrays.equal(*(arrays.as_bytes(column, bits) for column in ids))
    return _mask(rows, arrays.known(chosen, rejected, *ids) & ~same)


def _mask(rows: pd.DataFrame, values: Bools) -> Mask:
    return pd.Series(values, index=rows.index)


def _missing(rows: pd.DataFrame) -> Bools:
    """Of which rows no value is there."""
    return rows.isna().all(axis=1).to_numpy(bool)


def _numbers(rows: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The frame as floats, shape (columns, rows); NaN where a value is no number."""
    columns = [pd.to_numeric(rows[name], errors="coerce").to_numpy(np.float64, na_value=np.nan) for name in rows]
    return np.stack(columns)


def _texts(rows: pd.DataFrame) -> list[Any]:
    return [arrays.texts(rows[name]) for name in rows]
