"""Columns of a frame as Arrow arrays, and what their buffers tell without a Python object per row."""

import re
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Array: TypeAlias = Any  # a pyarrow.Array; pyarrow has no types
Bools: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
Ints: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
Bytes: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def frame(table: Any) -> pd.DataFrame:
    """An Arrow table as a frame whose texts and lists stay Arrow's, without a copy."""

    def kept(kind: Any) -> pd.ArrowDtype | None:
        return pd.ArrowDtype(kind) if pa.types.is_string(kind) or pa.types.is_list(kind) else None

    rows: pd.DataFrame = table.to_pandas(types_mapper=kept)
    return rows


def texts(column: "pd.Series[Any]") -> Array:
    """The column as large_string; null where a value is no text. U+FFFD stands for lone surrogates, which UTF-8 lacks.

    Both are the trace of a character that was cut in two.
    """
    if isinstance(column.dtype, pd.ArrowDtype | pd.StringDtype):
        return whole(pa.array(column.array), pa.large_string())
    values = [value if isinstance(value, str) else None for value in column]
    try:
        return pa.array(values, pa.large_string())
    except UnicodeEncodeError:
        marked = [value if value is None else _LONE_SURROGATE.sub("\ufffd", value) for value in values]
        return pa.array(marked, pa.large_string())


def ids(column: "pd.Series[Any]") -> Array:
    """The column of lists of token ids as large_list<int64>, nulls kept. Raises TypeError for a value that is no list.

    A null among the ids becomes -1, which is no id.
    """
    if isinstance(column.dtype, pd.ArrowDtype):
        rows = whole(pa.array(column.array), pa.large_list(pa.int64()))
    else:
        values = [None if _is_null(value) else list(value) for value in column]
        rows = pa.array(values, pa.large_list(pa.int64()))
    if rows.values.null_count:
        rows = pa.LargeListArray.from_arrays(rows.offsets, pc.fill_null(rows.values, -1), mask=rows.is_null())
    return rows


def as_bytes(rows: Array) -> Array:
    """Each row's ids (large_list<int64>) as the bytes that they take, large_binary, null for a null row; no copy."""
    values = rows.values
    width = values.type.bit_width // 8
    starts = (_offsets(rows) + values.offset) * width
    binary = _binary(pa.large_binary(), starts, values.buffers()[1])
    return pc.if_else(rows.is_valid(), binary, None) if rows.null_count else binary


def whole(array: Array, kind: Any) -> Array:
    """An array, or one in pieces, as one piece of a type."""
    if isinstance(array, pa.ChunkedArray):
        array = array.cast(kind)
        return array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    return array.cast(kind)


def known(*columns: Array) -> Bools:
    """In which rows every column has a value."""
    present = np.ones(len(columns[0]), bool)
    for column in columns:
        if column.null_count:
            present &= _bools(column.is_valid())
    return present


def equal(first: Array, second: Array) -> Bools:
    """Where two arrays hold the same; False where either is null."""
    return _bools(pc.fill_null(pc.equal(first, second), False))


def after(column: Array, first: Array) -> tuple[Bools, Array]:
    """Where a text begins with that of `first`, and what follows it there; the whole text where it does not.

    Both are large_string. Bytes are compared, which for UTF-8 is comparing characters.
    """
    starts, wanted = _offsets(column), np.diff(_offsets(first))
    room = wanted <= np.diff(starts)
    heads, _ = _cut(column, starts, np.where(room, wanted, 0))
    begins = room & equal(heads, first.cast(pa.large_binary())) & known(column)
    _, rests = _cut(column, starts, np.where(begins, wanted, 0))
    return begins, rests.view(pa.large_string())


def matching(column: Array, pattern: str) -> Bools:
    """Where a text holds a match of an RE2 pattern; False where it is null."""
    return _bools(pc.fill_null(pc.match_substring_regex(column, pattern), False))


def holding(column: Array, first: int, *following: tuple[int, int]) -> Bools:
    """Which texts hold the byte `first`, which begins a character, followed by bytes in these ranges, ends included."""
    data = _data(column)
    at = np.flatnonzero(data == first)
    at = at[at < len(data) - len(following)]
    for place, (least, most) in enumerate(following, 1):
        at = at[(data[at + place] >= least) & (data[at + place] <= most)]
    return _rows(column, at)


def holding_control(column: Array, allowed: str) -> Bools:
    """Which texts hold a control character of ASCII that is not one of the allowed ones."""
    data = _data(column)
    at = np.flatnonzero((data < 0x20) | (data == 0x7F))
    return _rows(column, at[~np.isin(data[at], [ord(character) for character in allowed])])


def hashes(column: Array) -> Ints:
    """A hash of 64 bits of each value of a large_binary or large_string array: equal values have equal ones.

    It is Python's own (SipHash). Of n distinct values some two have one hash with a probability of n^2 / 2^65: 1e-7 for
    two million.
    """
    values = column.cast(pa.large_binary()).to_numpy(zero_copy_only=False)
    return np.fromiter(map(hash, values), np.int64, len(values))


def mixed(*parts: Ints) -> Ints:
    """One hash of several, in their order."""
    mixed = np.zeros(len(parts[0]), np.uint64)
    for part in parts:  # splitmix64's finaliser, Steele, Lea and Flood 2014
        mixed = (mixed ^ part.view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed.view(np.int64)


def _cut(column: Array, starts: Ints, lengths: Ints) -> tuple[Array, Array]:
    """Each text in two, as large_binary: so many bytes, and the rest."""
    rows = len(lengths)
    offsets = np.empty(2 * rows + 1, np.int64)
    offsets[::2] = starts
    offsets[1::2] = starts[:-1] + lengths
    halves = _binary(pa.large_binary(), offsets, column.buffers()[2])
    return halves.take(np.arange(0, 2 * rows, 2)), halves.take(np.arange(1, 2 * rows, 2))


def _binary(kind: Any, offsets: Ints, data: Any) -> Array:
    return pa.Array.from_buffers(kind, len(offsets) - 1, [None, pa.py_buffer(offsets), data or pa.py_buffer(b"")])


def _offsets(array: Array) -> Ints:
    """Where the rows of a large_string or large_list array begin and end, in bytes or values of its buffer."""
    if not len(array):
        return np.zeros(1, np.int64)
    return np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]


def _data(column: Array) -> Bytes:
    """The bytes of all texts, one after the other."""
    offsets = _offsets(column)
    data = column.buffers()[2]
    return np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]


def _rows(column: Array, positions: Ints) -> Bools:
    """The rows in which some bytes of `_data` stand."""
    offsets = _offsets(column)
    held = np.zeros(len(column), bool)
    held[np.searchsorted(offsets, positions + offsets[0], side="right") - 1] = True
    return held


def _bools(array: Array) -> Bools:
    return np.asarray(array.to_numpy(zero_copy_only=False), bool)


def _is_null(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)
