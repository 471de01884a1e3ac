"""Columns of a frame as Arrow arrays, and what their buffers tell without a Python object per row."""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Array: TypeAlias = Any  # a pyarrow.Array; pyarrow has no types
Bools: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
Ints: TypeAlias = "np.ndarray[Any, np.dtype[np.signedinteger[Any]]]"
Bytes: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

_BLOCK = 2**17

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def frame(table: Any) -> pd.DataFrame:
    """An Arrow table as a frame whose texts and lists stay Arrow's, without a copy."""

    def kept(kind: Any) -> pd.ArrowDtype | None:
        return pd.ArrowDtype(kind) if pa.types.is_string(kind) or pa.types.is_list(kind) else None

    rows: pd.DataFrame = table.to_pandas(types_mapper=kept)
    return rows


def texts(column: "pd.Series[Any]") -> Array:
    """The column as (large_)string; null where a value is no text. U+FFFD stands for lone surrogates, not in UTF-8.

    Both are the trace of a character that was cut in two.
    """
    if isinstance(column.dtype, pd.ArrowDtype | pd.StringDtype):
        found = whole(pa.array(column.array))
        return found if pa.types.is_string(found.type) else found.cast(pa.large_string())
    values = [value if isinstance(value, str) else None for value in column]
    try:
        return pa.array(values, pa.large_string())
    except UnicodeEncodeError:
        marked = [value if value is None else _LONE_SURROGATE.sub("\ufffd", value) for value in values]
        return pa.array(marked, pa.large_string())


def ids(column: "pd.Series[Any]") -> Array:
    """The column of lists of token ids as (large_)list, nulls kept. Raises TypeError for a value that is no list.

    A null among the ids becomes -1, which is no id.
    """
    if isinstance(column.dtype, pd.ArrowDtype):
        rows = whole(pa.array(column.array))
    else:
        rows = pa.array([None if _is_null(value) else list(value) for value in column], pa.large_list(pa.int64()))
    if rows.values.null_count:
        rows = type(rows).from_arrays(rows.offsets, pc.fill_null(rows.values, -1), mask=rows.is_null())
    return rows


def whole(array: Array) -> Array:
    """An array, or one in pieces, as one piece; of texts, there may be more than 2 GiB."""
    if not isinstance(array, pa.ChunkedArray):
        return array
    if array.num_chunks > 1 and pa.types.is_string(array.type):
        array = array.cast(pa.large_string())
    return array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()


def as_bytes(rows: Array, bits: int = 0) -> Array:
    """Each row's ids as the bytes that they take, large_binary, null for a null row; ids of `bits` bits if given."""
    values = rows.values.cast(f"int{bits}") if bits else rows.values
    width = values.type.bit_width // 8
    starts = (_offsets(rows).astype(np.int64) + values.offset) * width
    binary = _binary(pa.large_binary(), starts, values.buffers()[1])
    return pc.if_else(rows.is_valid(), binary, None) if rows.null_count else binary


def chars(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """How many characters each text has, int64; float64 with NaN where one is no text."""
    lengths: pd.Series[Any] = pc.utf8_length(texts(column)).cast(pa.int64()).to_pandas().set_axis(column.index)
    return lengths


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


def begins(column: Array, first: Array) -> Bools:
    """Where a text begins with that of `first`; bytes are compared, which for UTF-8 is comparing characters."""
    starts, wanted = _offsets(column), np.diff(_offsets(first))
    room = wanted <= np.diff(starts)
    heads = _halves(column, np.where(room, wanted, 0)).take(np.arange(0, 2 * len(column), 2))
    return room & equal(heads, first.cast(heads.type)) & known(column)


def rests(column: Array, first: Array) -> Array:
    """What follows the text of `first` in each text; the whole text where it does not begin with it."""
    lengths = np.where(begins(column, first), np.diff(_offsets(first)), 0)
    halves = _halves(column, lengths).take(np.arange(1, 2 * len(column), 2))
    return halves.view(pa.string() if pa.types.is_binary(halves.type) else pa.large_string())


def matching(column: Array, pattern: str) -> Bools:
    """Where a text holds a match of an RE2 pattern; False where it is null."""
    return _bools(pc.fill_null(pc.match_substring_regex(column, pattern), False))


def holding(column: Array, first: int, *following: tuple[int, int]) -> Bools:
    """Which texts hold the byte `first`, which begins a character, followed by bytes in these ranges, ends included."""
    data = _data(column)
    at = _where(data, lambda block: block == first)
    at = at[at < len(data) - len(following)]
    for place, (least, most) in enumerate(following, 1):
        at = at[(data[at + place] >= least) & (data[at + place] <= most)]
    return _rows(column, at)


def holding_control(column: Array, allowed: str) -> Bools:
    """Which texts hold a control character of ASCII that is not one of the allowed ones."""
    data = _data(column)
    at = _where(data, lambda block: (block < 0x20) | (block == 0x7F))
    return _rows(column, at[~np.isin(data[at], [ord(character) for character in allowed])])


def hashes(column: Array) -> Ints:
    """A hash of 64 bits of each value of an array of texts or bytes: equal values have equal ones, in every process.

    It is pandas' SipHash, of a fixed key. Of n distinct values some two have one hash with a probability of n^2 / 2^65:
    1e-7 for two million.
    """
    large = str(column.type).startswith("large_")
    values = column.cast(pa.large_binary() if large else pa.binary()).to_numpy(zero_copy_only=False)
    return pd.util.hash_array(values, categorize=False).view(np.int64)


def mixed(*parts: Ints) -> Ints:
    """One hash of several, in their order."""
    mixed = np.zeros(len(parts[0]), np.uint64)
    for part in parts:  # splitmix64's finaliser, Steele, Lea and Flood 2014
        mixed = (mixed ^ part.view(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed.view(np.int64)


def _halves(column: Array, lengths: Ints) -> Array:
    """The texts as bytes, each in two values: so many bytes of it, and the rest."""
    starts = _offsets(column)
    offsets = np.empty(2 * len(column) + 1, starts.dtype)
    offsets[::2] = starts
    offsets[1::2] = starts[:-1] + lengths
    return _binary(pa.binary() if pa.types.is_string(column.type) else pa.large_binary(), offsets, column.buffers()[2])


def _binary(kind: Any, offsets: Ints, data: Any) -> Array:
    return pa.Array.from_buffers(kind, len(offsets) - 1, [None, pa.py_buffer(offsets), data or pa.py_buffer(b"")])


def _offsets(array: Array) -> Ints:
    """Where the rows of an array of texts or lists begin and end, in bytes or values of its buffer."""
    kind: Any = np.int64 if str(array.type).startswith("large_") else np.int32
    if not len(array):
        return np.zeros(1, kind)
    return np.frombuffer(array.buffers()[1], kind)[array.offset : array.offset + len(array) + 1]


def _data(column: Array) -> Bytes:
    """The bytes of all texts, one after the other."""
    offsets = _offsets(column)
    data = column.buffers()[2]
    return np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]


def _where(data: Bytes, test: Callable[[Bytes], Bools]) -> Ints:
    """The positions of the bytes that pass a test; it gets as many at a time as a processor's cache holds."""
    found = [np.flatnonzero(test(data[start : start + _BLOCK])) + start for start in range(0, len(data), _BLOCK)]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


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
