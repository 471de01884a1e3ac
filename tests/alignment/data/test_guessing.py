"""What a data file seems to hold: pairs, chats, prompts or texts, and which label is the good one."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.data.guessing import Guess, first_rows, guess, guess_of
from alignment.errors import DataError

CHAT = [{"role": "user", "content": "Hi"}]
LABELLED = [{"text": f"film {n}", "label": n % 2} for n in range(20)]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], Guess("pairs", "chosen")),
        ([{"chosen": CHAT, "rejected": CHAT}], Guess("pairs", "chosen")),
        ([{"messages": CHAT, "id": 1}], Guess("chats", "messages")),
        ([{"id": "x", "talk": CHAT}], Guess("chats", "talk")),
        ([{"prompt": CHAT}], Guess("chats", "prompt")),
        ([{"Instruction": "a", "output": "b"}], Guess("prompts", "Instruction")),
        (LABELLED, Guess("texts", "text", "label", "1")),
        ([{"a": "x", "b": "a long one"}], Guess("texts", "b")),
        ([{"text": "x", "prompt": None}], Guess("prompts", "prompt")),
    ],
    ids=["pairs", "pairs-of-chats", "chats", "chats-by-value", "chat-prompts", "prompts", "texts", "longest", "nulls"],
)
def test_what_rows_seem_to_be(rows: list[dict[str, Any]], found: Guess) -> None:
    assert guess_of(rows) == found


@pytest.mark.parametrize(
    ("labels", "positive", "negative"),
    [
        ([0, 1], "1", ""),
        (["neg", "pos"], "pos", ""),
        (["True", "False"], "True", ""),
        (["1", "2"], "1", ""),
        ([1, 2, 3, 4, 5], "5", "1"),
        ([2, 10, 9], "10", "2"),
        (["bad", "fair", "great"], "great", "bad"),
    ],
)
def test_which_label_is_the_good_one(labels: list[Any], positive: str, negative: str) -> None:
    rows = [{"review": f"a film {n}", "stars": labels[n % len(labels)]} for n in range(40)]
    assert guess_of(rows) == Guess("texts", "review", "stars", positive, negative)


def test_a_column_of_many_values_is_no_label() -> None:
    assert guess_of([{"text": f"a {n}", "label": n} for n in range(40)]) == Guess("texts", "text")


def test_rows_without_texts_are_refused() -> None:
    with pytest.raises(DataError, match=r"my\.csv: none of its columns a, b holds texts"):
        guess_of([{"a": 1, "b": 2.0}], "my.csv")


def test_each_format_is_looked_into(tmp_path: Path) -> None:
    import pandas

    table = pandas.DataFrame(LABELLED)
    table.to_parquet(tmp_path / "a.parquet")
    table.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in LABELLED), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(LABELLED, indent=1), encoding="utf-8")
    for file in tmp_path.iterdir():
        assert guess(str(file)) == Guess("texts", "text", "label", "1"), file.name
        assert len(first_rows(file)) == len(LABELLED)
    assert guess(str(tmp_path)) == Guess("texts", "text", "label", "1")


def test_the_grammar_is_known_and_the_hub_is_not_asked() -> None:
    assert guess("grammar") == Guess("texts", "text", "label", "1")
    assert guess("stanfordnlp/imdb") is None


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read \(JSONDecodeError"):
        guess(str(tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match="no such file"):
        guess(str(tmp_path / "b.jsonl"))
