"""Texts from the grammar and from files: every row is accounted for, and a file that cannot be used is one line."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from alignment import grammar
from alignment.config import DataConfig
from alignment.errors import DataError
from alignment.texts import is_file, load_texts

FRAME = pd.DataFrame({"text": [f"text number {index}" for index in range(10)], "label": [0, 1] * 5})
NONE = {"blank": 0, "too_short": 0, "too_long": 0, "no_label": 0, "not_needed": 0}
ADVICE = "give a readable .parquet, .csv or .jsonl file that has rows, or the name of a dataset that the hub has"


def save(frame: pd.DataFrame, path: Path) -> Path:
    match path.suffix:
        case ".parquet":
            frame.to_parquet(path)
        case ".csv":
            frame.to_csv(path, index=False)
        case _:
            frame.to_json(path, orient="records", lines=True)
    return path


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """`load(path, seed=0, **data)` -> the rows and their counts."""

    def load(path: Path | str, seed: int = 0, **data: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
        return load_texts(DataConfig(path=str(path), **data), seed, tmp_path / "cache")

    return load


@pytest.fixture
def refusal(load: Any) -> Any:
    """`refusal(path, **data)` -> the one line in which the file is refused."""

    def refusal(path: Path | str, **data: Any) -> str:
        with pytest.raises(DataError) as raised:
            load(path, **data)
        message = str(raised.value)
        assert "\n" not in message
        return message

    return refusal


# What is read


def test_the_grammar_needs_no_file(load):
    rows, counts = load("grammar", rows=5, seed=3)
    assert rows == [{"text": text, "label": label} for text, label in grammar.corpus(5, 3)]
    assert counts == {"read": 5, "kept": 5}


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl", "a.json", "A.CSV"])
def test_each_kind_of_file_gives_the_same_rows(load, tmp_path, name):
    rows, counts = load(
        save(FRAME, tmp_path / name) if name != "A.CSV" else save(FRAME, tmp_path / "a.csv").rename(tmp_path / name)
    )
    assert sorted((row["text"], row["label"]) for row in rows) == list(zip(FRAME["text"], FRAME["label"], strict=True))
    assert counts == {"read": 10, "kept": 10} | NONE


def test_the_order_is_the_seeds(load, tmp_path):
    path = save(FRAME, tmp_path / "a.parquet")
    first, again, other = (load(path, seed=seed)[0] for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert sorted(row["text"] for row in first) == sorted(row["text"] for row in other)


def test_fewer_rows_are_the_first_of_all_rows(load, tmp_path):
    path = save(FRAME, tmp_path / "a.parquet")
    every, _ = load(path, rows=0)
    some, counts = load(path, rows=4)
    assert some == every[:4]
    assert counts == {"read": 10, "kept": 4} | NONE | {"not_needed": 6}


def test_every_row_that_is_dropped_is_counted_once_with_its_reason(load, tmp_path):
    """3 to 8 characters are wanted. Kept: `three` and `eight888`."""
    frame = pd.DataFrame(
        {
            "text": ["three", "eight888", "no", "nine99999", " \n ", "", None, "good"],
            "label": [1, 0, 1, 1, 1, 1, 1, None],
        }
    )
    rows, counts = load(save(frame, tmp_path / "a.parquet"), min_chars=3, max_chars=8)
    assert {row["text"]: row["label"] for row in rows} == {"three": 1, "eight888": 0}
    assert counts == {
        "read": 8,
        "kept": 2,
        "blank": 3,
        "too_short": 1,
        "too_long": 1,
        "no_label": 1,
        "not_needed": 0,
    }


@pytest.mark.parametrize("rows", [0, 1, 3, 100])
def test_the_counts_sum_to_what_was_read(load, tmp_path, rows):
    frame = pd.DataFrame({"text": ["a", "bb", "ccc", "dddd", "", None], "label": [0, 1, None, 1, 0, 1]})
    _, counts = load(save(frame, tmp_path / "a.jsonl"), rows=rows, min_chars=2, max_chars=3)
    assert counts.pop("read") == sum(counts.values()) == 6


def test_the_columns_may_have_other_names(load, tmp_path):
    frame = FRAME.rename(columns={"text": "review", "label": "stars"})
    rows, _ = load(save(frame, tmp_path / "a.csv"), text_column="review", label_column="stars")
    assert set(rows[0]) == {"text", "label"}


# Labels


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        ([1, 0], "1"),
        ([5, 1], "5"),
        (["pos", "neg"], "pos"),
        ([True, False], "True"),
        ([True, False], "1"),
        ([False, True], "0"),
        ([1.0, 0.0], "1"),
        ([0.5, 1.5], "0.5"),
    ],
    ids=str,
)
def test_the_label_that_counts_as_positive_is_written_as_a_text(load, tmp_path, values, positive):
    frame = pd.DataFrame({"text": ["first", "second"], "label": values})
    rows, _ = load(save(frame, tmp_path / "a.parquet"), positive_label=positive)
    assert {row["text"]: row["label"] for row in rows} == {"first": 1, "second": 0}


def test_a_gap_in_a_column_of_numbers_does_not_change_the_other_labels(load, tmp_path):
    """A CSV reader makes 1.0 of 1 where a value is missing further down."""
    path = tmp_path / "a.csv"
    path.write_text("text,label\nfirst,1\nsecond,0\nthird,\n")
    rows, counts = load(path)
    assert {row["text"]: row["label"] for row in rows} == {"first": 1, "second": 0}
    assert counts["no_label"] == 1


def test_without_a_label_column_no_text_has_a_label(load, tmp_path):
    rows, _ = load(save(FRAME[["text"]], tmp_path / "a.csv"), label_column="")
    assert {row["label"] for row in rows} == {-1}


# What is refused


def test_a_missing_file_is_not_looked_for_on_the_hub(refusal, tmp_path):
    path = tmp_path / "none.csv"
    assert refusal(path) == f"data.path {path}: no such file; give a .parquet, .csv or .jsonl file, or a hub name"


@pytest.mark.parametrize("name", ["a.xlsx", "folder", "folder.csv"])
def test_a_file_of_another_kind_is_refused(refusal, tmp_path, name):
    path = tmp_path / name
    path.write_text("text,label\n") if name == "a.xlsx" else path.mkdir()
    assert refusal(path) == f"data.path {path}: not a .csv, .json, .jsonl, .parquet file"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_an_empty_file_is_refused(refusal, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    assert refusal(path) == f"data.path {path}: the file is empty; it needs a text and a label column"


def test_a_file_with_a_header_and_no_row_is_refused(refusal, tmp_path):
    path = save(FRAME[:0], tmp_path / "a.csv")
    assert refusal(path).startswith(f"data.path {path}: cannot be read (")
    assert refusal(path).endswith(ADVICE)


def test_a_table_without_rows_is_refused(refusal, tmp_path):
    path = save(FRAME[:0], tmp_path / "a.parquet")
    assert refusal(path).startswith(f"data.path {path}: cannot be read (")
    assert refusal(path).endswith(ADVICE)


def test_a_file_without_the_label_column_is_refused_with_both_ways_out(refusal, tmp_path):
    path = save(FRAME[["text"]], tmp_path / "a.csv")
    assert refusal(path) == (
        f"data.path {path}: has no column `label` (it has text); "
        'set data.label_column to one of them or to "" if the texts have no labels'
    )


def test_a_file_without_the_text_column_is_refused(refusal, tmp_path):
    path = save(FRAME, tmp_path / "a.csv")
    assert refusal(path, text_column="review") == (
        f"data.path {path}: has no column `review` (it has text, label); set data.text_column to one of them"
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.parquet", b"PAR1 and then junk", "ArrowInvalid: Parquet magic bytes not found in footer"),
        ("a.jsonl", b"{not json\n", "ArrowInvalid: JSON parse error"),
        ("a.csv", b"\xff\xfe\x00\x01", "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_corrupt_file_is_refused_with_what_its_reader_said(refusal, tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith(f"data.path {path}: cannot be read ({reason}")
    assert message.endswith(f"); {ADVICE}")


def test_texts_none_of_which_can_be_used_are_refused_with_the_counts(refusal, tmp_path):
    path = save(FRAME, tmp_path / "a.csv")
    assert refusal(path, min_chars=100) == f"data.path {path}: no usable text (10 read, 10 too_short)"


def test_a_dataset_that_the_hub_does_not_give_is_refused(refusal, monkeypatch):
    import datasets

    def missing(**_: Any) -> None:
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    assert refusal("someone/reviews") == (
        f"data.path someone/reviews: cannot be read (ConnectionError: Couldn't reach the hub); {ADVICE}"
    )


def test_a_full_disk_is_not_blamed_on_the_data(load, tmp_path, monkeypatch):
    """The reader wraps what the disk said; the store makes its own line of it."""
    import errno

    import datasets

    full = OSError(errno.ENOSPC, "No space left on device")

    def failing(**_: Any) -> None:
        raise RuntimeError("An error occurred while generating the dataset") from full

    monkeypatch.setattr(datasets, "load_dataset", failing)
    with pytest.raises(OSError, match="No space left on device") as raised:
        load(save(FRAME, tmp_path / "a.csv"))
    assert raised.value is full


def test_what_counts_as_a_file(tmp_path):
    assert is_file("reviews.csv")
    assert is_file(str(tmp_path))
    assert not is_file("stanfordnlp/imdb")
