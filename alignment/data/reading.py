"""The text and the label column of a file, or of a dataset on the hub, as they are written: nothing is guessed.

CSV and JSON are read a row at a time, and a fault is told with its line. A label keeps its spelling; what it means is
for `labels` to say.
"""

import csv
import errno
import io
import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from alignment.config import DataConfig
from alignment.errors import DataError

Row = tuple[str | None, str | None]  # text and label; None where there is none
Reader = Callable[[BinaryIO, DataConfig], Iterator[Row]]

_QUOTING = "a field that holds a comma, a quote or a line break is written in double quotes, a quote in it twice"
_JSON_SHAPE = "write one whole object a line, or one array of objects"
_SHOWN = 20  # columns that a message names


@dataclass(frozen=True)
class Columns:
    """N texts and N labels as they are spelt; None where a row has none, or where no label column is asked for."""

    texts: list[str | None]
    labels: list[str | None]


def is_file(path: str) -> bool:
    """Whether `data.path` means a file (by its ending or beginning, or as it exists) and not a dataset on the hub."""
    local = Path(path).is_absolute() or path.startswith((".", "~"))
    return local or Path(path).suffix.lower() in READERS or Path(path).exists()


def require_file(path: Path) -> None:
    """Raise DataError unless it is a file, not empty, of a kind that can be read."""
    if not path.exists():
        raise DataError(f"data.path {path}: no such file; give a .parquet, .csv or .jsonl file, or a hub name")
    if path.is_dir():
        raise DataError(
            f"data.path {path}: is a folder; give a {', '.join(sorted(READERS))} file; `Dataset.to_parquet` writes one"
        )
    if path.suffix.lower() not in READERS or not path.is_file():
        raise DataError(f"data.path {path}: not a {', '.join(sorted(READERS))} file")
    if path.stat().st_size == 0:
        raise DataError(f"data.path {path}: the file is empty; it needs a text and a label column")


def file_format(path: Path) -> str:
    """What decides, beside its content, how a file is read."""
    return READERS[path.suffix.lower()].__name__.strip("_")


def read_columns(config: DataConfig, cache: Path) -> Columns:
    """Every row's text and label. Raises DataError where the source cannot be read, or is not what it should be."""
    columns = Columns([], [])
    try:
        for text, label in _read_file(config) if is_file(config.path) else _hub(config, cache):
            columns.texts.append(text)
            columns.labels.append(label)
    except DataError:
        raise
    except Exception as error:  # the readers raise whatever their format's library raises
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            raise cause from None
        raise DataError(
            f"data.path {config.path}: cannot be read ({type(cause).__name__}: {' '.join(str(cause).split())[:200]}); "
            "give a readable .parquet, .csv or .jsonl file, or the name of a dataset that the hub has"
        ) from error
    return columns


def _read_file(config: DataConfig) -> Iterator[Row]:
    path = Path(config.path)
    require_file(path)
    before = path.stat()
    with path.open("rb") as stream:  # not its name, which some libraries take for a pattern or an address
        yield from READERS[path.suffix.lower()](stream, config)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _fault(config, "was written to while it was read; run again once it is finished")


def _fault(config: DataConfig, what: str) -> DataError:
    return DataError(f"data.path {config.path}: {what}")


def _require_columns(names: Sequence[str], config: DataConfig) -> None:
    for role, column in (("text_column", config.text_column), ("label_column", config.label_column)):
        if column and column not in names:
            others = ", ".join(f"`{name[:40]}`" for name in names[:_SHOWN]) or "none"
            more = ", …" if len(names) > _SHOWN else ""
            hint = "" if role == "text_column" else ' or to "" if the texts have no labels'
            raise _fault(
                config, f"has no column `{column}` (it has {others}{more}); set data.{role} to one of them{hint}"
            )
        if column and names.count(column) > 1:
            raise _fault(config, f"has {names.count(column)} columns `{column}`; rename all but one of them")


# Text files


def _text(stream: BinaryIO) -> io.TextIOWrapper:
    """UTF-8 with its line ends as they are, a byte order mark left out."""
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _lines(text: io.TextIOWrapper, config: DataConfig) -> Iterator[str]:
    """The lines with their ends. Raises DataError for the first that is not UTF-8."""
    try:
        for number, line in enumerate(text, 1):
            if "\0" in line:
                raise _fault(config, f"line {number} holds a NUL, as UTF-16 does; save the file as UTF-8")
            yield line
    except UnicodeDecodeError:
        where, byte = _first_byte_that_is_not_utf8(config.path)
        raise _fault(
            config, f"line {where} is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8, and not compressed"
        ) from None


def _first_byte_that_is_not_utf8(path: str) -> tuple[int, int]:
    with Path(path).open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number, line[error.start]
    raise AssertionError(f"{path} is UTF-8")


def _csv(stream: BinaryIO, config: DataConfig) -> Iterator[Row]:
    """Comma-separated, as RFC 4180 has it: as many fields in each row as in the header; blank lines are no rows."""
    with _text(stream) as opened, _fields_of_any_length():
        rows = _csv_rows(opened, config)
        _, names = next(rows, (0, []))
        if not names:
            raise _fault(config, "holds nothing but blank lines; it needs a text and a label column")
        _require_columns(names, config)
        text = names.index(config.text_column)
        label = names.index(config.label_column) if config.label_column else None
        for line, fields in rows:
            if len(fields) != len(names):
                raise _fault(
                    config,
                    f"line {line} has {len(fields)} fields, and the header names {len(names)} columns; {_QUOTING}",
                )
            yield fields[text], None if label is None else sys.intern(fields[label])


def _csv_rows(opened: io.TextIOWrapper, config: DataConfig) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row, with the line on which it begins."""
    rows = csv.reader(_lines(opened, config), strict=True)
    line = 1
    try:
        for fields in rows:
            if fields:
                yield line, fields
            line = rows.line_num + 1
    except csv.Error as error:
        raise _fault(config, f"the row that begins on line {line} is not CSV ({error}); {_QUOTING}") from error


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


def _json(stream: BinaryIO, config: DataConfig) -> Iterator[Row]:
    """An object a line, or one array of objects; blank lines are no rows."""
    names: dict[str, None] | None = None
    wanted = set(_wanted(config))
    with _text(stream) as opened:
        for where, row in _json_rows(opened, config):
            if not isinstance(row, dict):
                raise _fault(config, f"{where} is {_KINDS[type(row)]}, and not an object; {_JSON_SHAPE}")
            if names is None or not wanted <= names.keys():
                names = (names or {}) | dict.fromkeys(row)
            text = _json_value(row, config.text_column, where, config)
            if not isinstance(text, str | None):
                raise _not_text(config, where, _KINDS[type(text)])
            label = _json_value(row, config.label_column, where, config) if config.label_column else None
            yield text, None if label is None else sys.intern(label if isinstance(label, str) else json.dumps(label))
    if names is not None:
        _require_columns(list(names), config)


def _json_rows(opened: io.TextIOWrapper, config: DataConfig) -> Iterator[tuple[str, Any]]:
    lines = enumerate(_lines(opened, config), 1)
    for number, line in lines:
        if line.lstrip().startswith("["):
            whole = "".join([line, *(rest for _, rest in lines)])
            for index, row in enumerate(_json_parsed(whole, number, config), 1):
                yield f"element {index}", row
        elif line.strip():
            yield f"line {number}", _json_parsed(line, number, config)


def _json_parsed(text: str, first: int, config: DataConfig) -> Any:
    try:
        return _DECODER.decode(text.rstrip())
    except (ValueError, RecursionError) as error:
        line = first + error.lineno - 1 if isinstance(error, json.JSONDecodeError) else first
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise _fault(config, f"line {line} is not JSON ({reason}); {_JSON_SHAPE}") from error


def _json_value(row: dict[str, Any], column: str, where: str, config: DataConfig) -> Any:
    """A text, a number, a truth value, or None where there is none; NaN, which JSON does not have, is none too."""
    found = row.get(column)
    if isinstance(found, _Repeated):
        raise _fault(config, f"{where} names `{column}` more than once; keep one of them")
    if isinstance(found, list | dict):
        raise _not_text(config, where, _KINDS[type(found)], column)
    if isinstance(found, str) and not found.isascii():
        try:
            found.encode()
        except UnicodeEncodeError as error:
            raise _fault(
                config, f"{where}: `{column}` holds half of a character ({error.object[error.start]!a}); remove it"
            ) from error
    return None if isinstance(found, float) and math.isnan(found) else found


def _not_text(config: DataConfig, where: str, kind: str, column: str = "") -> DataError:
    column = column or config.text_column
    role = "text" if column == config.text_column else "label"
    way_out = "write each text as one string" if role == "text" else "write each label as one value"
    place = f"{where}: " if where else ""
    return _fault(config, f"{place}the column `{column}` holds {kind}, and not a {role}; {way_out}")


# Tables


def _parquet(stream: BinaryIO, config: DataConfig) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(stream)
    _require_columns(file.schema_arrow.names, config)
    batches = file.iter_batches(columns=_wanted(config))
    yield from _rows((pa.Table.from_batches([batch]) for batch in batches), config)


def _hub(config: DataConfig, cache: Path) -> Iterator[Row]:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what goes wrong is told once, by the error
    dataset = datasets.load_dataset(config.path, split=config.split, cache_dir=str(cache))
    _require_columns(dataset.column_names, config)
    tables = dataset.select_columns(_wanted(config)).with_format("arrow").iter(batch_size=10_000)
    yield from _rows(tables, config)


def _wanted(config: DataConfig) -> list[str]:
    return list(dict.fromkeys(filter(None, (config.text_column, config.label_column))))


def _rows(tables: Iterable[Any], config: DataConfig) -> Iterator[Row]:
    for table in tables:
        texts = _texts(table.column(config.text_column), config)
        labels = _labels(table.column(config.label_column), config) if config.label_column else [None] * len(texts)
        yield from zip(texts, labels, strict=True)


def _texts(column: Any, config: DataConfig) -> list[str | None]:
    import pyarrow as pa

    column = _plain(column)
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(check(column.type) for check in kinds):
        raise _not_text(config, "", _kind(column.type))
    found: list[str | None] = column.to_pylist()
    return found


def _labels(column: Any, config: DataConfig) -> list[str | None]:
    """Labels as texts: a number in the fewest digits that mean it, a truth value as `true` or `false`; NaN is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _plain(column)
    if pa.types.is_nested(column.type):
        raise _not_text(config, "", _kind(column.type), config.label_column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    found: list[str | None] = column.cast(pa.string()).to_pylist()
    return found


def _kind(kind: Any) -> str:
    """An Arrow type in words."""
    name = " ".join(str(kind).split())[:80]
    return f"lists ({name})" if "list" in name.partition("<")[0] else f"values of the type {name}"


def _plain(column: Any) -> Any:
    """The column without an extension's name or a dictionary of its values."""
    import pyarrow as pa

    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


READERS: dict[str, Reader] = {".parquet": _parquet, ".csv": _csv, ".json": _json, ".jsonl": _json}
