"""Rows that a training reads one by one from a file."""

import pyarrow as pa
import pytest

from alignment.stages.row_file import BATCH_ROWS, RowFile

SCHEMA = pa.schema([("ids", pa.list_(pa.int32())), ("logprob", pa.float64())])
ROWS = [{"ids": list(range(n % 5)), "logprob": -n / 2} for n in range(2 * BATCH_ROWS + 7)]


def made(folder, rows, *cuts):
    tables = (pa.Table.from_pylist(rows[a:b], SCHEMA) for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True))
    return RowFile(folder / "rows.arrow", SCHEMA, tables)


@pytest.mark.parametrize("cuts", [(), (1,), (BATCH_ROWS,), (3, 90, 91)])
def test_rows_are_found_wherever_they_stand_as_in_a_list(tmp_path, cuts):
    found = made(tmp_path, ROWS, *cuts)
    assert len(found) == len(ROWS)
    assert list(found) == ROWS
    assert [found[n] for n in (-1, 100, 0)] == [ROWS[n] for n in (-1, 100, 0)]
    assert found[5:9] == ROWS[5:9]
    with pytest.raises(IndexError):
        found[len(ROWS)]


def test_a_file_of_before_is_replaced_and_nothing_else_is_left(tmp_path):
    made(tmp_path, ROWS)
    assert list(made(tmp_path, ROWS[:1])) == ROWS[:1]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.arrow"]
    assert list(made(tmp_path, [])) == []
