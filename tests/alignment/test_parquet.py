"""Tables that are read and written piece by piece: in order, whole, and a row group at a time."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.parquet import GROUP_ROWS, Table

NUMBERS: Table[Any] = Table(
    "n.parquet", pa.schema([("n", pa.int64()), ("ids", pa.list_(pa.int32())), ("text", pa.string())])
)
MANY = 2 * GROUP_ROWS + 10


def made(numbers):
    return [{"n": n, "ids": [n, n + 1], "text": f"row {n}"} for n in numbers]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of two row groups and a piece."""
    folder = tmp_path_factory.mktemp("many")
    NUMBERS.write(folder, made(range(MANY)))
    return folder


def test_what_is_written_is_read(folder):
    assert NUMBERS.read(folder) == made(range(MANY))
    assert NUMBERS.count(folder) == MANY
    assert [len(batch) for batch in NUMBERS.batches(folder)] == [GROUP_ROWS, GROUP_ROWS, 10]


def test_a_row_lacks_no_column_and_brings_no_other(tmp_path):
    with pytest.raises(KeyError, match="text"):
        NUMBERS.write(tmp_path, [{"n": 1, "ids": []}])
    with pytest.raises(KeyError, match="text"), NUMBERS.writer(tmp_path) as writer:
        writer.append(pa.table({"n": [1], "ids": [[1]]}))
    NUMBERS.write(tmp_path, [{**row, "other": 1} for row in made([1])])
    assert NUMBERS.read(tmp_path) == made([1])


def test_columns_beside_the_schemas_are_named_with_their_type(tmp_path):
    NUMBERS.write(tmp_path, [{**row, "part.a": None} for row in made([1])], {"part.a": pa.float64()})
    assert NUMBERS.read(tmp_path) == [{**made([1])[0], "part.a": None}]


def test_no_rows_are_a_table_too(tmp_path):
    NUMBERS.write(tmp_path, [])
    assert (NUMBERS.read(tmp_path), NUMBERS.count(tmp_path), list(NUMBERS.batches(tmp_path))) == ([], 0, [])
    assert pq.read_schema(tmp_path / NUMBERS.file) == NUMBERS.schema


@settings(max_examples=30)
@given(start=st.integers(0, MANY + 5), length=st.integers(0, MANY), size=st.integers(1, MANY))
def test_a_range_is_its_rows_in_order(folder, start, length, size):
    batches = list(NUMBERS.batches(folder, ["n"], rows=size, start=start, stop=start + length))
    assert [n for batch in batches for n in batch["n"].to_pylist()] == list(range(MANY))[start : start + length]
    assert all(0 < len(batch) <= size for batch in batches)


def test_a_range_decodes_its_own_row_groups_alone(folder, monkeypatch):
    class Watched(pq.ParquetFile):
        def read_row_group(self, number, *args, **options):
            decoded.append(number)
            return super().read_row_group(number, *args, **options)

    decoded: list[int] = []
    monkeypatch.setattr("alignment.parquet.pq.ParquetFile", Watched)
    assert sum(map(len, NUMBERS.batches(folder, start=GROUP_ROWS, stop=2 * GROUP_ROWS))) == GROUP_ROWS
    assert decoded == [1]
    decoded.clear()
    list(NUMBERS.batches(folder, start=GROUP_ROWS - 1, stop=GROUP_ROWS + 1))
    assert decoded == [0, 1]


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, MANY), max_size=6).map(sorted), as_rows=st.booleans())
def test_the_bytes_do_not_depend_on_the_pieces(folder, tmp_path_factory, cuts, as_rows):
    """So a stage's digest is the same however many parts its table was merged of."""
    other = tmp_path_factory.mktemp("pieces")
    table = pq.read_table(folder / NUMBERS.file)
    with NUMBERS.writer(other) as writer:
        for first, last in zip([0, *cuts], [*cuts, MANY], strict=True):
            if as_rows:
                writer.write(made(range(first, last)))
            else:
                writer.append(table.slice(first, last - first))
    assert (other / NUMBERS.file).read_bytes() == (folder / NUMBERS.file).read_bytes()
