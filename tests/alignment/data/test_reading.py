"""Reading: what comes out is what was written, to the character, and a file that is not what it seems is refused.

The expected rows are written by hand beside the bytes.
"""

import csv
import datetime
import decimal
import errno
import io
import json
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.config import DataConfig
from alignment.data.reading import is_local, read_columns
from alignment.data.texts import wanted_of
from alignment.data.wanted import Wanted
from alignment.errors import DataError

ROWS = [(f"text number {index}", str(index % 2)) for index in range(10)]
FRAME = pd.DataFrame({"text": [text for text, _ in ROWS], "label": [int(label) for _, label in ROWS]})
ADVICE = "give a readable .parquet, .csv or .jsonl file, or the name of a dataset that the hub has"
CHATS = ", or set prompts.source to messages if these are chats"
QUOTING = "a field that holds a comma, a quote or a line break is written in double quotes, a quote in it twice"
SHAPE = "write one whole object a line, or one array of objects"


def save(frame: pd.DataFrame, path: Path) -> Path:
    match path.suffix.lower():
        case ".parquet":
            frame.to_parquet(path)
        case ".csv":
            frame.to_csv(path, index=False)
        case _:
            frame.to_json(path, orient="records", lines=True)
    return path


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """`read(path or bytes, name="a.csv", **data)` -> (text, label) of each row."""

    def read(source: Path | str | bytes, name: str = "a.csv", **data: Any) -> list[tuple[str | None, str | None]]:
        if isinstance(source, bytes):
            (tmp_path / name).write_bytes(source)
            source = tmp_path / name
        found = read_columns(wanted_of(DataConfig(path=str(source), **data)), tmp_path / "cache")
        return list(zip(found.texts, found.labels, strict=True))

    return read


@pytest.fixture
def refusal(read: Any, tmp_path: Path) -> Any:
    """`refusal(path or bytes, name, **data)` -> the one line in which it is refused, without the file's name."""

    def refusal(source: Path | str | bytes, name: str = "a.csv", **data: Any) -> str:
        with pytest.raises(DataError) as raised:
            read(source, name, **data)
        message = str(raised.value)
        assert "\n" not in message
        path = tmp_path / name if isinstance(source, bytes) else source
        assert message.startswith(f"data.path {path}: ")
        return message.removeprefix(f"data.path {path}: ")

    return refusal


# Every kind of file


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl", "a.json", "A.CSV", "a.PARQUET", "a.JsonL"])
def test_each_kind_of_file_gives_the_same_rows(read, tmp_path, name):
    assert read(save(FRAME, tmp_path / name)) == ROWS


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_a_column_that_is_not_asked_for_is_not_looked_at(read, tmp_path, name):
    frame = FRAME.assign(odd=[*["1"] * 9, "text"])
    assert read(save(frame, tmp_path / name)) == ROWS
    assert read(tmp_path / name, label_column="") == [(text, None) for text, _ in ROWS]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".json"])
@pytest.mark.parametrize(
    "stem",
    ["reviews[1]", "reviews*", "reviews?", "{a,b}", "a::b", "zip://a", "%20", "a b", "#1", "été", "a\\b", "$HOME"],
)
def test_a_path_is_a_name_and_no_pattern(read, tmp_path, stem, suffix):
    """`reviews1` is what a glob, and `b` what a chain of file systems would have read."""
    path = tmp_path / f"{stem}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in ("reviews1", "reviews", "a", "b"):
        save(FRAME.assign(text="another file's"), tmp_path / f"{other}{suffix}")
    save(FRAME, path)
    assert read(path) == ROWS


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_byte_order_mark_and_blank_lines_are_no_content(read, name):
    content = {"a.csv": b"\r\ntext,label\r\n\r\nfirst,1\r\n\r\n", "a.jsonl": b'\n{"text": "first", "label": 1}\r\n\n'}
    assert read(content[name], name) == [("first", "1")]
    assert read(b"\xef\xbb\xbf" + content[name], name) == [("first", "1")]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_bytes_that_are_not_utf8_are_refused_with_their_line(refusal, name):
    row = {"a.csv": b"caf\xe9,1\n"}.get(name, b'{"text": "caf\xe9"}\n')
    assert refusal(b"\n" * 3 + row, name) == (
        "line 4 is not UTF-8 (byte 0xe9); save the file as UTF-8, and not compressed"
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_another_encoding_is_refused(refusal, name, encoding):
    assert refusal("text,label\nfirst,1\n".encode(encoding), name).startswith("line 1 is not UTF-8 (byte 0xff)")
    assert refusal("text,label\nfirst,1\n".encode(f"{encoding}-le"), name) == (
        "line 1 holds a NUL, as UTF-16 does; save the file as UTF-8"
    )


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_a_compressed_file_under_a_plain_name_is_refused(refusal, name):
    import gzip

    assert "not UTF-8" in (told := refusal(gzip.compress(b"text,label\nfirst,1\n"), name)) or "cannot be read" in told


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_that_grows_while_it_is_read_is_refused(refusal, tmp_path, name, monkeypatch):
    from alignment.data import reading

    path = save(FRAME, tmp_path / name)
    reader = reading.READERS[path.suffix]

    def and_meanwhile(stream: BinaryIO, wanted: Wanted) -> Any:
        yield from reader(stream, wanted)
        with path.open("ab") as writer:
            writer.write(b"more")

    monkeypatch.setitem(reading.READERS, path.suffix, and_meanwhile)
    assert refusal(path) == "was written to while it was read; run again once it is finished"


# CSV


@pytest.mark.parametrize(
    "word", ["NA", "N/A", "None", "null", "nan", "NaN", "NULL", "", "<NA>", "#N/A", "-nan", "inf", "007", "1e5"]
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_no_word_is_taken_for_a_gap_or_a_number(read, name, word):
    if name == "a.csv":
        content = f"text,label\n{word},{word}\n".encode()
    else:
        content = json.dumps({"text": word, "label": word}).encode()
    assert read(content, name) == [(word, word)]


def test_a_column_may_change_its_looks_as_late_as_it_likes(read):
    """A guesser reads a block, takes the column for numbers, and fails or rewrites what came before."""
    rows = [*[("a text", "1")] * 100_000, ("another", "1.0"), ("5", "one")]
    content = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    assert read(content.encode()) == rows
    lines = "".join(
        json.dumps({"text": text, "label": json.loads(label) if label != "one" else label}) + "\n"
        for text, label in rows
    )
    assert read(lines.encode(), "a.jsonl") == rows


TRICKY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from('",\r\n \t;'))


@given(rows=st.lists(st.tuples(TRICKY, TRICKY), min_size=1, max_size=5))
def test_what_a_csv_writer_wrote_is_read_as_it_was(tmp_path_factory, rows):
    """Commas, quotes, line breaks of every kind, blanks and empty fields."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    found = read_columns(wanted_of(DataConfig(path=str(path))), path)
    assert list(zip(found.texts, found.labels, strict=True)) == rows


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way_and_keep_their_ends_within_quotes(read, end):
    content = f'text,label{end}"two{end}lines",1{end}last,0'
    assert read(content.encode()) == [(f"two{end}lines", "1"), ("last", "0")]


def test_a_very_long_field_is_read(read):
    assert read(b"text,label\n" + b"x" * 300_000 + b",1\n") == [("x" * 300_000, "1")]
    assert csv.field_size_limit() == 131_072  # as it was


def test_the_index_that_pandas_writes_is_a_column_like_another(read, tmp_path):
    FRAME.to_csv(tmp_path / "a.csv")
    assert read(tmp_path / "a.csv") == ROWS


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("text,label\nfine,1\nwell, really,1\n", "line 3 has 3 fields, and the header names 2 columns"),
        ("text,label\nwell, really,1\n", "line 2 has 3 fields, and the header names 2 columns"),
        ("text,label\n0,first,1\n1,second,0\n", "line 2 has 3 fields, and the header names 2 columns"),
        ("text,label\nfine,1\nno label\n", "line 3 has 1 fields, and the header names 2 columns"),
        ('text,label\n"two\nlines",1\n\nfine,1,\n', "line 5 has 3 fields, and the header names 2 columns"),
        (
            'text,label\nfine,1\n"never closed,1\nmore,0\n',
            "the row that begins on line 3 is not CSV (unexpected end of data)",
        ),
        ('text,label\n"a "word" in it",1\n', "the row that begins on line 2 is not CSV (',' expected after '\"')"),
        (
            'text,label\n"he said \\"so\\" then",1\n',
            "the row that begins on line 2 is not CSV (',' expected after '\"')",
        ),
    ],
)
def test_a_row_that_does_not_fit_its_header_is_refused_with_its_line(refusal, content, fault):
    assert refusal(content.encode()) == f"{fault}; {QUOTING}"


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_another_separator_is_told_by_the_header(refusal, mark):
    assert refusal(f"text{mark}label\nwell, really{mark}1\n".encode()).startswith(
        f"has no column `text` (it has `text{mark}label`); set data.text_column to one of them"
    )


def test_a_nul_within_a_csv_is_refused_with_its_line(refusal):
    assert refusal(b"text,label\nfine,1\nbr\0ken,0\n").startswith("line 3 holds a NUL")


def test_a_column_that_is_there_twice_is_refused_where_it_is_asked_for(read, refusal):
    assert refusal(b"text,label,text\na,1,b\n") == "has 2 columns `text`; rename all but one of them"
    assert refusal(b"text,label,label\na,1,0\n") == "has 2 columns `label`; rename all but one of them"
    assert read(b"text,label,x,x\na,1,,\n") == [("a", "1")]


def test_nothing_but_blank_lines_is_refused(refusal):
    assert refusal(b"\n\n") == "holds nothing but blank lines; it needs a text and a label column"


# JSON


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_an_array_of_objects_is_read_as_its_lines_would_be(read, name):
    content = json.dumps([{"text": text, "label": int(label)} for text, label in ROWS], indent=1)
    assert read(f"\n {content}\n".encode(), name) == ROWS


@pytest.mark.parametrize(
    ("value", "spelling"),
    [
        ("1", "1"), ("1.0", "1.0"), ("true", "true"), ("false", "false"), ("null", None), ("NaN", None), ('"x"', "x"),
        ("0.5", "0.5"), ("9007199254740993", "9007199254740993"), ("1e3", "1000.0"), ('""', ""), ('" 1 "', " 1 "),
        ('"2024-01-01"', "2024-01-01"),
    ],
)  # fmt: skip
def test_a_label_of_any_type_becomes_what_can_be_written(read, value, spelling):
    assert read(f'{{"text": "a", "label": {value}}}'.encode(), "a.jsonl") == [("a", spelling)]


def test_names_that_a_row_lacks_are_gaps(read):
    content = b'{"label": 1}\n{"text": "a"}\n{"text": null, "label": null}\n{"text": NaN}\n{}\n'
    assert read(content, "a.jsonl") == [(None, "1"), ("a", None), (None, None), (None, None), (None, None)]


def test_a_line_separator_within_a_text_does_not_end_the_line(read):
    content = json.dumps({"text": "a\u2028b\u0085c", "label": 1}, ensure_ascii=False)
    assert read(content.encode(), "a.jsonl") == [("a\u2028b\u0085c", "1")]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"text": "a"}\n{"text": "b"\n', f"line 2 is not JSON (Expecting ',' delimiter); {SHAPE}"),
        ('{"text": "a"}\n\n{"text": "b"} {}\n', f"line 3 is not JSON (Extra data); {SHAPE}"),
        ('{\n "text": "a"\n}\n', f"line 1 is not JSON (Expecting property name enclosed in double quotes); {SHAPE}"),
        ('[\n{"text": "a"},\n{"text": }\n]', f"line 3 is not JSON (Expecting value); {SHAPE}"),
        ('{"text": "a"}\n5\n', f"line 2 is a number, and not an object; {SHAPE}"),
        ('[{"text": "a"}, ["b"]]', f"element 2 is a list, and not an object; {SHAPE}"),
        ('"text"\n', f"line 1 is a text, and not an object; {SHAPE}"),
        ('{"text": "a", "text": "b"}', "line 1 names `text` more than once; keep one of them"),
        (
            '{"text": "a"}\n{"text": ["a", "b"]}',
            f"line 2: the column `text` holds a list, and not a text; write each text as one string{CHATS}",
        ),
        (
            '{"text": [{"role": "user", "content": "a"}]}',
            f"line 1: the column `text` holds a list, and not a text; write each text as one string{CHATS}",
        ),
        ('{"text": 5}', "line 1: the column `text` holds a number, and not a text; write each text as one string"),
        (
            '{"text": true}',
            "line 1: the column `text` holds a truth value, and not a text; write each text as one string",
        ),
        (
            '{"text": "a", "label": {"x": 1}}',
            "line 1: the column `label` holds an object, and not a label; write each label as one value",
        ),
        ('{"text": "cut \\ud83d"}', "line 1: `text` holds half of a character ('\\ud83d'); remove it"),
        (
            '{"data": [{"text": "a", "label": 1}]}',
            "has no column `text` (it has `data`); set data.text_column to one of them",
        ),
        (
            '{"text": {"0": "a", "1": "b"}, "label": {"0": 1, "1": 0}}',
            "line 1: the column `text` holds an object, and not a text; write each text as one string",
        ),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_of_another_shape_is_refused_with_its_line(refusal, name, content, fault):
    assert refusal(content.encode(), name) == fault


def test_what_is_repeated_or_nested_in_other_fields_is_nobodys_business(read):
    assert read(b'{"text": "a", "label": 1, "x": 1, "x": 2, "y": [{"z": 1, "z": 2}]}', "a.jsonl") == [("a", "1")]


def test_objects_nested_too_deeply_are_refused(refusal):
    assert refusal(b'{"text": ' + b"[" * 200_000, "a.jsonl").startswith("line 1 is not JSON (")


# Further columns, and texts that are lists

CHAT = [{"role": "user", "content": "Grüß dich"}]
WIDE = pd.DataFrame({"text": ["a", "b"], "answer": [4, 5], "chat": [CHAT, CHAT]})


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_further_columns_come_as_json(tmp_path, name):
    path = save(WIDE, tmp_path / name)
    wanted = Wanted(str(path), text="text", columns=("answer", "chat"), optional=("absent",))
    found = read_columns(wanted, tmp_path)
    assert [json.loads(row) for row in found.others] == [{"answer": 4, "chat": CHAT}, {"answer": 5, "chat": CHAT}]


def test_further_columns_of_csv_are_texts(tmp_path):
    path = save(WIDE[["text", "answer"]], tmp_path / "a.csv")
    found = read_columns(Wanted(str(path), text="text", columns=("answer",)), tmp_path)
    assert [json.loads(row) for row in found.others] == [{"answer": "4"}, {"answer": "5"}]


def test_without_further_columns_there_are_none(tmp_path):
    assert read_columns(Wanted(str(save(WIDE, tmp_path / "a.jsonl")), text="text"), tmp_path).others == ["", ""]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_nested_texts_come_as_json_and_plain_ones_too(tmp_path, name):
    path = str(save(WIDE, tmp_path / name))
    assert json.loads(read_columns(Wanted(path, text="chat", nested=True), tmp_path).texts[0] or "") == CHAT
    assert read_columns(Wanted(path, text="text", nested=True), tmp_path).texts == ['"a"', '"b"']


def test_a_missing_further_column_is_named(tmp_path):
    path = save(WIDE[["text"]], tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"has no column `answer` \(it has `text`\); set data\.columns to one of them"):
        read_columns(Wanted(str(path), text="text", columns=("answer",)), tmp_path)


# Parquet


@pytest.mark.parametrize(
    ("values", "spellings"),
    [
        (pa.array([1.0, 0.0, float("nan"), None]), ["1", "0", None, None]),
        (pa.array([0.1, 2.5], pa.float32()), ["0.1", "2.5"]),
        (pa.array([1e-7, 1.5]), ["1e-7", "1.5"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([2**53 + 1, -1]), ["9007199254740993", "-1"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([decimal.Decimal("0.50")]), ["0.50"]),
        (pa.array([datetime.date(2024, 1, 2)]), ["2024-01-02"]),
        (pa.array(["pos", "", None]), ["pos", "", None]),
        (pa.array(["pos", "neg", None]).dictionary_encode(), ["pos", "neg", None]),
        (pa.array([1, 0, None]).dictionary_encode(), ["1", "0", None]),
        (pa.array(["pos"], pa.large_string()), ["pos"]),
        (pa.array([b"pos"]), ["pos"]),
        (pa.array([None, None]), [None, None]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_typed_label_becomes_what_can_be_written(read, tmp_path, values, spellings):
    pq.write_table(pa.table({"text": ["a"] * len(values), "label": values}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [("a", spelling) for spelling in spellings]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_a_text_may_be_kept_in_several_ways(read, tmp_path, kind):
    pq.write_table(
        pa.table({"text": pa.array(["a", None, "None"]).cast(kind), "label": [1, 0, 1]}), tmp_path / "a.parquet"
    )
    assert read(tmp_path / "a.parquet") == [("a", "1"), (None, "0"), ("None", "1")]


def test_a_text_column_of_another_type_is_refused_and_not_called_blank(refusal, tmp_path):
    def told(values: Any) -> str:
        pq.write_table(pa.table({"text": values, "label": [1]}), tmp_path / "a.parquet")
        message: str = refusal(tmp_path / "a.parquet")
        return message

    chat = pa.array([[{"role": "user", "content": "a"}]])
    assert told(chat).startswith("the column `text` holds lists (list<element: struct<")
    assert told(chat).endswith(f"and not a text; write each text as one string{CHATS}")
    assert "values of the type int64, and not a text" in told(pa.array([5]))
    assert "values of the type binary, and not a text" in told(pa.array([b"a"]))
    assert "values of the type struct<" in told(pa.array([{"a": 1}]))


def test_a_label_column_of_lists_is_refused(refusal, tmp_path):
    pq.write_table(pa.table({"text": ["a"], "label": [[1]]}), tmp_path / "a.parquet")
    assert "the column `label` holds lists (list<element: int64>), and not a label" in refusal(tmp_path / "a.parquet")


def test_a_column_may_have_a_dot_in_its_name(read, tmp_path):
    """Parquet's reader also takes a dotted name for the way into a structure."""
    pq.write_table(pa.table({"a": [{"b": "inner"}], "a.b": ["outer"], "label": [1]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", text_column="a.b") == [("outer", "1")]


def test_every_row_group_is_read(read, tmp_path):
    pq.write_table(
        pa.table({"text": [str(i) for i in range(1_000)], "label": list(range(1_000))}),
        tmp_path / "a.parquet",
        row_group_size=7,
    )
    assert read(tmp_path / "a.parquet") == [(str(i), str(i)) for i in range(1_000)]


@pytest.mark.parametrize("length", [10, 500, -1])
def test_a_parquet_file_that_is_not_whole_is_refused(refusal, tmp_path, length):
    path = save(FRAME, tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:length])
    assert refusal(path).startswith("cannot be read (Arrow")
    assert refusal(path).endswith(f"); {ADVICE}")


# A dataset on the hub


def hub(monkeypatch: pytest.MonkeyPatch, columns: dict[str, Any]) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_dict(columns))


def test_a_dataset_is_read_by_its_columns(read, monkeypatch):
    hub(monkeypatch, {"text": ["a", None, "None"], "label": [1.0, float("nan"), 0.0], "id": [[1], [2], [3]]})
    assert read("someone/reviews") == [("a", "1"), (None, None), ("None", "0")]


def test_a_dataset_of_conversations_is_refused(refusal, monkeypatch):
    hub(monkeypatch, {"text": [[{"role": "user", "content": "a"}]], "label": [1]})
    assert "the column `text` holds lists (" in refusal("someone/reviews")


def test_a_dataset_that_the_hub_does_not_give_is_refused(refusal, monkeypatch):
    import datasets

    def missing(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    way_out = "look at the network and its proxy, or give a .parquet, .csv or .jsonl file"
    assert refusal("someone/reviews") == f"cannot be read (ConnectionError: Couldn't reach the hub); {way_out}"


def test_a_full_disk_is_not_blamed_on_the_data(read, monkeypatch):
    """The reader wraps what the disk said; the store makes its own line of it."""
    import datasets

    full = OSError(errno.ENOSPC, "No space left on device")

    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("An error occurred while generating the dataset") from full

    monkeypatch.setattr(datasets, "load_dataset", failing)
    with pytest.raises(OSError, match="No space left on device") as raised:
        read("someone/reviews")
    assert raised.value is full


# What is no file that can be read


def test_what_counts_as_a_file(tmp_path):
    assert is_local("reviews.csv")
    assert is_local(str(tmp_path))
    assert not is_local("stanfordnlp/imdb")


def test_a_missing_file_is_not_looked_for_on_the_hub(refusal, tmp_path):
    assert refusal(tmp_path / "none.csv") == "no such file; give a .parquet, .csv or .jsonl file, or a hub name"


@pytest.mark.parametrize("name", ["a.xlsx", "a.jsonl.gz", "a.csv.zip", "a.tsv", "a"])
def test_a_file_of_another_kind_is_refused(refusal, name):
    assert refusal(b"text,label\na,1\n", name) == "not a .csv, .json, .jsonl, .parquet file"


@pytest.mark.parametrize("name", ["folder", "folder.csv", "folder.parquet"])
def test_a_folder_without_data_is_refused(refusal, tmp_path, name):
    (tmp_path / name).mkdir()
    assert refusal(tmp_path / name) == "holds no .parquet, .csv, .jsonl file; `Dataset.to_parquet` writes one"


def test_a_folder_means_its_files_whatever_their_formats(read, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    halves = FRAME[:5], FRAME[5:]
    for half, name in zip(halves, ("b.jsonl", "a.parquet"), strict=True):
        save(half, folder / name)
    (folder / "README.md").write_text("about them")
    (folder / "info.json").write_text("{}")
    assert sorted(read(folder)) == sorted(ROWS)


def test_a_pattern_is_one_only_where_it_is_asked_for(read, refusal, tmp_path):
    for name in ("one.csv", "two.csv", "other.csv"):
        save(FRAME[:1] if name == "one.csv" else FRAME[1:2], tmp_path / name)
    assert len(read(f"glob:{tmp_path}/[ot][nw]*.csv")) == 2
    assert refusal(tmp_path / "[ot][nw]*.csv").startswith("no such file")
    with pytest.raises(DataError, match=r"data\.path glob:\S+none\*: holds no \.parquet, \.csv, \.jsonl file"):
        read(f"glob:{tmp_path}/none*")


def test_what_save_to_disk_wrote_is_a_folder(refusal, tmp_path):
    import datasets

    datasets.Dataset.from_dict({"text": ["a"], "label": [1]}).save_to_disk(tmp_path / "saved")
    assert refusal(tmp_path / "saved").endswith("`Dataset.to_parquet` writes one")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_an_empty_file_is_refused(refusal, name):
    assert refusal(b"", name) == "the file is empty; it needs a text and a label column"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_without_a_column_is_refused_with_the_ways_out(refusal, tmp_path, name):
    path = save(FRAME[["text"]], tmp_path / name)
    assert refusal(path) == (
        "has no column `label` (it has `text`); "
        'set data.label_column to one of them or to "" if the texts have no labels'
    )
    assert refusal(path, text_column="review", label_column="") == (
        "has no column `review` (it has `text`); set data.text_column to one of them"
    )


def test_many_long_names_are_told_in_short(refusal):
    header = ",".join([f"column {index}" for index in range(30)])
    assert refusal(f"{'x' * 90},{header}\n".encode()).startswith(
        f"has no column `text` (it has `{'x' * 40}`, `column 0`,"
    )
    assert "`column 18`, …)" in refusal(f"{'x' * 90},{header}\n".encode())


def test_the_writer_of_these_tests_writes_csv_as_others_do():
    """pandas, an independent reader, agrees on a row with everything in it."""
    stream = io.StringIO()
    csv.writer(stream).writerows([("text", "label"), ('a "b", c\nd', "1")])
    assert pd.read_csv(io.StringIO(stream.getvalue())).to_numpy().tolist() == [['a "b", c\nd', 1]]
