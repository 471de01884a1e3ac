"""Rows of text files, CSV and JSON, as they are written: nothing is guessed, and a fault is told with its line."""

import csv
import io
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from alignment.data.wanted import Row, Wanted, as_json, fault, not_text, require_columns

_QUOTING = "a field that holds a comma, a quote or a line break is written in double quotes, a quote in it twice"
_JSON_SHAPE = "write one whole object a line, or one array of objects"


def _text(stream: BinaryIO) -> io.TextIOWrapper:
    """UTF-8 with its line ends as they are, a byte order mark left out."""
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _lines(text: io.TextIOWrapper, wanted: Wanted) -> Iterator[str]:
    """The lines with their ends. Raises DataError for the first that is not UTF-8."""
    try:
        for number, line in enumerate(text, 1):
            if "\0" in line:
                raise fault(wanted, f"line {number} holds a NUL, as UTF-16 does; save the file as UTF-8")
            yield line
    except UnicodeDecodeError:
        where, byte = _first_byte_that_is_not_utf8(wanted.path)
        raise fault(
            wanted, f"line {where} is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8, and not compressed"
        ) from None


def _first_byte_that_is_not_utf8(path: str) -> tuple[int, int]:
    with Path(path).open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number, line[error.start]
    raise AssertionError(f"{path} is UTF-8")


def read_csv(stream: BinaryIO, wanted: Wanted) -> Iterator[Row]:
    """Comma-separated, as RFC 4180 has it: as many fields in each row as in the header; blank lines are no rows."""
    with _text(stream) as opened, _fields_of_any_length():
        rows = _csv_rows(opened, wanted)
        _, names = next(rows, (0, []))
        if not names:
            raise fault(wanted, "holds nothing but blank lines; it needs a text and a label column")
        require_columns(names, wanted)
        text = names.index(wanted.text)
        label = names.index(wanted.label) if wanted.label else None
        others = {name: names.index(name) for name in wanted.others(names)}
        for line, fields in rows:
            if len(fields) != len(names):
                raise fault(
                    wanted,
                    f"line {line} has {len(fields)} fields, and the header names {len(names)} columns; {_QUOTING}",
                )
            yield (
                as_json(fields[text]) if wanted.nested else fields[text],
                None if label is None else sys.intern(fields[label]),
                as_json({name: fields[index] for name, index in others.items()}) if others else "",
            )


def _csv_rows(opened: io.TextIOWrapper, wanted: Wanted) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row, with the line on which it begins."""
    rows = csv.reader(_lines(opened, wanted), strict=True)
    line = 1
    try:
        for fields in rows:
            if fields:
                yield line, fields
            line = rows.line_num + 1
    except csv.Error as error:
        raise fault(wanted, f"the row that begins on line {line} is not CSV ({error}); {_QUOTING}") from error


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


class _Repeated:
    """What stands in an object where a name is given more than once."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                found[name] = _Repeated()
            seen.add(name)
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_KINDS = {
    bool: "a truth value",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    str: "a text",
    type(None): "null",
}


def read_json(stream: BinaryIO, wanted: Wanted) -> Iterator[Row]:
    """An object a line, or one array of objects; blank lines are no rows."""
    names: dict[str, None] | None = None
    needed = set(wanted.needed)
    with _text(stream) as opened:
        for where, row in _json_rows(opened, wanted):
            if not isinstance(row, dict):
                raise fault(wanted, f"{where} is {_KINDS[type(row)]}, and not an object; {_JSON_SHAPE}")
            if names is None or not needed <= names.keys():
                names = (names or {}) | dict.fromkeys(row)
            text = _json_value(row, wanted.text, where, wanted, nested=wanted.nested)
            if wanted.nested:
                text = None if text is None else as_json(text)
            if not isinstance(text, str | None):
                raise not_text(wanted, where, _KINDS[type(text)])
            label = _json_value(row, wanted.label, where, wanted) if wanted.label else None
            others = {name: _json_value(row, name, where, wanted, nested=True) for name in wanted.others([*row])}
            yield (
                text,
                None if label is None else sys.intern(label if isinstance(label, str) else json.dumps(label)),
                as_json(others) if wanted.columns or others else "",
            )
    if names is not None:
        require_columns(list(names), wanted)


def _json_rows(opened: io.TextIOWrapper, wanted: Wanted) -> Iterator[tuple[str, Any]]:
    lines = enumerate(_lines(opened, wanted), 1)
    for number, line in lines:
        if line.lstrip().startswith("["):
            whole = "".join([line, *(rest for _, rest in lines)])
            for index, row in enumerate(_json_parsed(whole, number, wanted), 1):
                yield f"element {index}", row
        elif line.strip():
            yield f"line {number}", _json_parsed(line, number, wanted)


def _json_parsed(text: str, first: int, wanted: Wanted) -> Any:
    try:
        return _DECODER.decode(text.rstrip())
    except (ValueError, RecursionError) as error:
        line = first + error.lineno - 1 if isinstance(error, json.JSONDecodeError) else first
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise fault(wanted, f"line {line} is not JSON ({reason}); {_JSON_SHAPE}") from error


def _json_value(row: dict[str, Any], column: str, where: str, wanted: Wanted, *, nested: bool = False) -> Any:
    """A text, a number, a truth value, or None where there is none; NaN, which JSON does not have, is none too.

    A list or an object only where it may be `nested`.
    """
    found = row.get(column)
    if _repeats(found):
        within = "" if isinstance(found, _Repeated) else " a name in"
        raise fault(wanted, f"{where} names{within} `{column}` more than once; keep one of them")
    if isinstance(found, list | dict) and not nested:
        raise not_text(wanted, where, _KINDS[type(found)], column)
    _require_whole_characters(found, column, where, wanted)
    return None if isinstance(found, float) and math.isnan(found) else found


def _repeats(found: Any) -> bool:
    below = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return isinstance(found, _Repeated) or any(_repeats(value) for value in below)


def _require_whole_characters(found: Any, column: str, where: str, wanted: Wanted) -> None:
    if isinstance(found, str) and not found.isascii():
        try:
            found.encode()
        except UnicodeEncodeError as error:
            raise fault(
                wanted, f"{where}: `{column}` holds half of a character ({error.object[error.start]!a}); remove it"
            ) from error
    for below in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        _require_whole_characters(below, column, where, wanted)
