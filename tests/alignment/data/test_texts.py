"""Texts from the grammar and from files: every row is accounted for, and a file that cannot be used is one line."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from alignment.config import DataConfig
from alignment.data import grammar
from alignment.data.texts import load_texts
from alignment.data.wanted import Wanted
from alignment.errors import DataError
from alignment.rows import Text

FRAME = pd.DataFrame({"text": [f"text number {index}" for index in range(10)], "label": [0, 1] * 5})
NONE = {"blank": 0, "too_short": 0, "too_long": 0, "no_label": 0, "other_label": 0, "not_needed": 0}


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

    def load(path: Path | str, seed: int = 0, **data: Any) -> tuple[list[Text], dict[str, int]]:
        return load_texts(DataConfig(path=str(path), **data), seed, tmp_path / "cache")[:2]

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
    assert rows == [{"text": text, "label": label, "columns": ""} for text, label in grammar.corpus(5, 3)]
    assert counts == {"read": 5, "kept": 5}


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
        "other_label": 0,
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
    assert set(rows[0]) == {"text", "label", "columns"}


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
@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_the_positive_label_is_found_by_its_value_in_every_kind_of_file(load, tmp_path, name, values, positive):
    frame = pd.DataFrame({"text": ["first", "second"], "label": values})
    rows, _ = load(save(frame, tmp_path / name), positive_label=positive)
    assert {row["text"]: row["label"] for row in rows} == {"first": 1, "second": 0}


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_a_gap_among_the_labels_does_not_change_the_others(load, tmp_path, name):
    """pandas makes 1.0 of 1 in such a column, and writes NaN or null or nothing."""
    frame = pd.DataFrame({"text": ["first", "second", "third"], "label": [1, 0, None]})
    rows, counts = load(save(frame, tmp_path / name))
    assert {row["text"]: row["label"] for row in rows} == {"first": 1, "second": 0}
    assert counts["no_label"] == 1


STARS = pd.DataFrame({"text": ["good", "so so", "bad", "fine", ""], "label": [5, 3, 1, 5, 4]})


def test_with_a_negative_label_texts_of_neither_class_are_dropped_and_counted(load, tmp_path):
    rows, counts = load(save(STARS, tmp_path / "a.csv"), positive_label="5", negative_label="1")
    assert {row["text"]: row["label"] for row in rows} == {"good": 1, "fine": 1, "bad": 0}
    assert counts == {"read": 5, "kept": 3} | NONE | {"blank": 1, "other_label": 1}


def test_the_labels_are_told_of_every_usable_text_needed_or_not(tmp_path):
    path = save(STARS, tmp_path / "a.csv")
    _, counts, labels = load_texts(DataConfig(path=str(path), positive_label="5", rows=1), 0, tmp_path)
    assert counts["not_needed"] == 3
    assert dict(labels.values) == {"5": 2, "3": 1, "1": 1}
    assert (labels.distinct, labels.positive, labels.negative) == (3, 2, 2)


def test_the_grammar_has_two_classes(tmp_path):
    rows, _, labels = load_texts(DataConfig(rows=50, positive_label="pos"), 0, tmp_path)
    assert labels.positive == sum(row["label"] for row in rows) == 50 - labels.negative


def test_without_a_label_column_no_text_has_a_label(load, tmp_path):
    rows, _ = load(save(FRAME[["text"]], tmp_path / "a.csv"), label_column="")
    assert {row["label"] for row in rows} == {-1}


# What is refused


def test_texts_none_of_which_can_be_used_are_refused_with_the_counts(refusal, tmp_path):
    path = save(FRAME, tmp_path / "a.csv")
    assert refusal(path, min_chars=100) == f"data.path {path}: no usable text (10 read, 10 too_short)"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_without_rows_is_refused(refusal, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"[]") if name == "a.jsonl" else save(FRAME[:0], path)
    assert refusal(path) == f"data.path {path}: no usable text (it has no rows)"


# Several sources


def numbered(path: Path, name: str, count: int) -> Path:
    return save(pd.DataFrame({"text": [f"{name} {number}" for number in range(count)]}), path / f"{name}.csv")


def mixed(tmp_path: Path, *weights: tuple[Path, float], rows: int) -> Counter[str]:
    """How many rows each source of a mixture gave, by its name."""
    mixture = [{"path": str(path), "weight": weight} for path, weight in weights]
    config = DataConfig(mixture=mixture, label_column="", rows=rows)
    found, counts, _ = load_texts(config, 0, tmp_path)
    assert counts["kept"] == len(found)
    assert counts["read"] == sum(counts.values()) - counts["read"]
    return Counter(row["text"].split()[0] for row in found)


def test_a_mixture_gives_each_source_its_share_of_the_rows(tmp_path):
    few, many = numbered(tmp_path, "few", 50), numbered(tmp_path, "many", 500)
    assert mixed(tmp_path, (few, 1), (many, 3), rows=40) == {"few": 10, "many": 30}


def test_without_a_bound_a_mixture_is_as_large_as_its_proportions_allow(tmp_path):
    few, many = numbered(tmp_path, "few", 50), numbered(tmp_path, "many", 500)
    assert mixed(tmp_path, (few, 1), (many, 3), rows=0) == {"few": 50, "many": 150}


def test_a_source_that_runs_out_gives_what_it_has(tmp_path):
    few, many = numbered(tmp_path, "few", 50), numbered(tmp_path, "many", 500)
    assert mixed(tmp_path, (few, 1), (many, 1), rows=300) == {"few": 50, "many": 150}


def test_neither_names_nor_places_of_files_decide_the_order(tmp_path):
    """Content does: a folder whose files were renamed gives the same rows in the same order."""
    orders = []
    for names in (("a", "b"), ("b", "a")):
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        for name, text in zip(names, ("first", "second"), strict=True):
            numbered(folder, text, 20).rename(folder / f"{name}.csv")
        rows, _, _ = load_texts(DataConfig(path=str(folder), label_column=""), 0, tmp_path)
        orders.append([row["text"] for row in rows])
    assert orders[0] == orders[1]


def test_what_is_no_text_is_left_to_who_reads_chats_and_pairs(tmp_path):
    """Null, empty and long values alike: their fault is named there, so `plumbline check` and a run agree."""
    (tmp_path / "a.jsonl").write_text('{"chat": null}\n{"chat": ""}\n{"chat": []}\n{"chat": "x"}\n')
    path = str(tmp_path / "a.jsonl")
    config = DataConfig(path=path, max_chars=1)
    rows, counts, _ = load_texts(config, 0, tmp_path, Wanted(path, text="chat", nested=True))
    assert sorted(row["text"] for row in rows) == ['""', '"x"', "[]", "null"]
    assert counts["kept"] == counts["read"] == 4
