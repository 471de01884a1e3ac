"""Rows of tables: Parquet files, and datasets on the hub."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from alignment.data.wanted import Row, Wanted, as_json, not_text, require_columns
from alignment.hub import cache_without_network


def read_parquet(stream: BinaryIO, wanted: Wanted) -> Iterator[Row]:
    """The rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(stream)
    names = file.schema_arrow.names
    require_columns(names, wanted)
    batches = file.iter_batches(columns=wanted.named(names))
    yield from _rows((pa.Table.from_batches([batch]) for batch in batches), wanted)


def read_hub(wanted: Wanted, cache: Path) -> Iterator[Row]:
    """The rows of one split of a dataset on the hub, which is kept in `cache`."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what goes wrong is told once, by the error
    with cache_without_network():
        dataset = datasets.load_dataset(wanted.path, split=wanted.split, cache_dir=str(cache))
    require_columns(dataset.column_names, wanted)
    columns = wanted.named(dataset.column_names)
    yield from _rows(dataset.select_columns(columns).with_format("arrow").iter(batch_size=10_000), wanted)


def _rows(tables: Iterable[Any], wanted: Wanted) -> Iterator[Row]:
    for table in tables:
        texts = _nested(table.column(wanted.text)) if wanted.nested else _texts(table.column(wanted.text), wanted)
        labels = _labels(table.column(wanted.label), wanted) if wanted.label else [None] * len(texts)
        others = wanted.others(table.column_names)
        rows = table.select(others).to_pylist() if others else ()
        columns = [as_json(row) for row in rows] or [""] * len(texts)
        yield from zip(texts, labels, columns, strict=True)


def _nested(column: Any) -> list[str | None]:
    """Each value as JSON, whatever it is; None where there is none."""
    return [None if value is None else as_json(value) for value in _plain(column).to_pylist()]


def _texts(column: Any, wanted: Wanted) -> list[str | None]:
    import pyarrow as pa

    column = _plain(column)
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if not any(check(column.type) for check in kinds):
        raise not_text(wanted, "", _kind(column.type))
    found: list[str | None] = column.to_pylist()
    return found


def _labels(column: Any, wanted: Wanted) -> list[str | None]:
    """Labels as texts: a number in the fewest digits that mean it, a truth value as `true` or `false`; NaN is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _plain(column)
    if pa.types.is_nested(column.type):
        raise not_text(wanted, "", _kind(column.type), wanted.label)
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
