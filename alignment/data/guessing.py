"""What a data file seems to hold, from its columns and first rows: a guess, for people to correct."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from alignment.data.reading import file_format, files_of, is_local
from alignment.errors import DataError

Holds = Literal["texts", "prompts", "chats", "pairs"]
HOLDS: tuple[Holds, ...] = ("texts", "prompts", "chats", "pairs")
ROWS = 200  # that are looked at
PROMPT_NAMES = ("prompt", "prompts", "instruction", "question", "query", "input")
CHAT_NAMES = ("messages", "conversation", "conversations", "chat", "prompt")
TEXT_NAMES = ("text", "review", "content", "sentence", "body", "completion")
LABEL_NAMES = ("label", "labels", "sentiment", "stars", "rating", "class", "score")
POSITIVE = ("1", "true", "pos", "positive", "good", "yes")
MOST_LABELS = 20


@dataclass(frozen=True)
class Guess:
    """What the rows seem to be, and the columns that hold it; a field is empty where there is none."""

    holds: Holds
    text_column: str = ""
    label_column: str = ""
    positive_label: str = ""
    negative_label: str = ""
    """Only where the label column has more than two values."""


def guess(path: str) -> Guess | None:
    """What a file, or the first one of a folder or a pattern, seems to hold; None for a dataset on the hub.

    Raises DataError where there is no such file, or it cannot be read.
    """
    if path == "grammar":
        return Guess("texts", "text", "label", "1")
    if not is_local(path):
        return None
    (file, *_) = files_of(path)
    return guess_of(first_rows(file), str(file))


def guess_of(rows: Sequence[Mapping[str, Any]], name: str = "the data") -> Guess:
    """What some rows seem to be. Raises DataError where no column can be a text, a prompt, a chat or a pair."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if {"chosen", "rejected"} <= set(columns):
        return Guess("pairs", "chosen")
    chats = [column for column in columns if any(_is_chat(row.get(column)) for row in rows)]
    if chats:
        return Guess("chats", _first(CHAT_NAMES, chats) or chats[0])
    texts = [column for column in columns if all(isinstance(row.get(column), str | None) for row in rows)]
    labels = _labels(rows, columns)
    if prompt := _first(PROMPT_NAMES, texts):
        return Guess("prompts", prompt)
    text = _first(TEXT_NAMES, texts) or max(
        (column for column in texts if column not in labels), key=lambda column: _length(rows, column), default=""
    )
    if not text:
        raise DataError(
            f"{name}: none of its columns {', '.join(columns) or '(there are none)'} holds texts, chats or pairs; name "
            "a file with such a column"
        )
    label = _first(LABEL_NAMES, [column for column in labels if column != text])
    return Guess("texts", text, label, *(_classes(labels[label]) if label else ()))


def first_rows(file: Path) -> list[dict[str, Any]]:
    """The first rows of a file, as they stand there. Raises DataError where it cannot be read."""
    try:
        if (kind := file_format(file)) == "parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(file) as opened:
                batch = next(opened.iter_batches(batch_size=ROWS), None)
                return [] if batch is None else list(batch.to_pylist())
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if kind == "csv":
                return [dict(row) for row in islice(csv.DictReader(stream), ROWS)]
            return _json_rows(stream)
    except Exception as error:  # the readers raise whatever their format's library raises
        raise DataError(
            f"data {file}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]}); give a "
            "readable .parquet, .csv or .jsonl file"
        ) from error


def _json_rows(stream: io.TextIOBase) -> list[dict[str, Any]]:
    lines = [line for line in islice(stream, ROWS) if line.strip()]
    if lines and lines[0].lstrip().startswith("["):  # one list, over any number of lines
        found = json.loads("".join([*lines, *stream]))
    else:
        found = [json.loads(line) for line in lines]
    return [row for row in found[:ROWS] if isinstance(row, dict)]


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, dict) and {"role", "content"} <= message.keys() for message in value)
    )


def _labels(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, list[str]]:
    """The columns of few different values, with these as texts."""
    found: dict[str, list[str]] = {}
    for column in columns:
        values = [row.get(column) for row in rows]
        if all(value is None or isinstance(value, str | int | float) for value in values):
            different = sorted({str(value) for value in values if value is not None})
            if 2 <= len(different) <= min(MOST_LABELS, max(2, len(values) // 4)):
                found[column] = different
    return found


def _classes(values: Sequence[str]) -> tuple[str, str]:
    """Which label is the good one, and the bad one where there are more than two."""
    named = [value for value in values if value.lower() in POSITIVE]
    try:
        ordered = sorted(values, key=float)
    except ValueError:
        ordered = list(values)
    good = ordered[-1] if len(values) > 2 or not named else named[0]
    return good, "" if len(values) == 2 else ordered[0]


def _first(names: Sequence[str], columns: Sequence[str]) -> str:
    """The first of the names that one of the columns has, in whatever case."""
    lower = {column.lower(): column for column in reversed(columns)}
    return next((lower[name] for name in names if name in lower), "")


def _length(rows: Sequence[Mapping[str, Any]], column: str) -> float:
    return sum(len(row.get(column) or "") for row in rows) / max(1, len(rows))
