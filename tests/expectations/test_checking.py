"""Given pairs as files have them: every format of file gives the same pairs, nulls of a table included."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.config import build_config
from expectations.checking import check
from flows.cli.check import ALONE
from tests.alignment.preference_rows import row_of, write

ROWS = 100


def scored(number: int, format: str) -> dict[str, Any]:
    return row_of(number, format) | {"score_chosen": 2.5, "score_rejected": 1.0}


def write_as(kind: str, path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path.with_suffix(kind)
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        write(path, rows)
    return path


def found(path: Path) -> Any:
    wide = {"chosen_longer_min": 0.0, "chosen_longer_max": 1.0, "max_length_correlation": 1.0}
    return check(build_config(ALONE, overrides={"data": {"path": str(path)}, "validation": wide}))


@pytest.mark.parametrize("kind", [".parquet", ".csv", ".jsonl"])
def test_texts_are_read_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    read = found(write_as(kind, tmp_path / "pairs", [scored(number, "standard explicit") for number in range(ROWS)]))
    assert read.fine, read.problems
    assert read.formats == {"standard, explicit prompt": ROWS}
    assert (read.apart, read.not_applied) == ((), {})


def test_conversations_of_a_table_have_nulls_where_another_row_has_a_value(tmp_path: Path) -> None:
    rows = [scored(number, "conversational explicit") for number in range(ROWS)]
    rows[0]["prompt"] = [{**rows[0]["prompt"][0], "name": "Ann"}]
    read = found(write_as(".parquet", tmp_path / "pairs", rows))
    assert read.fine, read.problems
    assert read.formats == {"conversational, explicit prompt": ROWS}


def test_conversations_in_a_csv_are_texts_and_are_named_so(tmp_path: Path) -> None:
    rows = [
        {name: json.dumps(value) for name, value in row_of(number, "conversational implicit").items()}
        for number in range(ROWS)
    ]
    read = found(write_as(".csv", tmp_path / "pairs", rows))
    assert not read.fine
    assert [(each.name, each.rows) for each in read.apart] == [("messages_in_a_text", ROWS)]


def test_rows_of_several_files_are_named_with_their_file(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 50)):
        write(tmp_path / f"{name}.jsonl", [scored(number, "standard implicit") for number in range(first, first + 50)])
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write(json.dumps({"chosen": None, "rejected": "x"}) + "\n")
    read = found(tmp_path)
    assert [(each.name, each.where) for each in read.apart] == [("null", ("b.jsonl:51",))]
