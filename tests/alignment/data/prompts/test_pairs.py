"""The prompts of given pairs: one of each, split by a hash or by file, and every row accounted for."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config
from alignment.data.prompts.pairs import pairs
from alignment.data.prompts.source import Prompts, Rows
from alignment.data.words import Words
from alignment.errors import DataError
from alignment.rows import Text
from tests.alignment.preference_rows import row_of

CHATS = "conversational implicit"


def texts(rows: Sequence[dict[str, Any]]) -> list[Text]:
    return [{"text": json.dumps(row.get("chosen")), "label": -1, "columns": json.dumps(row)} for row in rows]


def config(**prompts: Any) -> AlignConfig:
    fields = {"source": "pairs", "min_eval": 2, **prompts}
    return build_config(
        {
            "data": {"path": "pairs.jsonl"},
            "base": {"model": "any"},
            "reward": {"kind": "none"},
            "pairs": {"source": "given"},
            "prompts": fields,
        }
    )


def made(rows: Sequence[dict[str, Any]], held_out: Sequence[dict[str, Any]] | None = None, **prompts: Any) -> Prompts:
    given = Rows(lambda: texts(rows), None if held_out is None else lambda: texts(held_out))
    return pairs(given, Words(), config(**prompts), set())


def test_each_prompt_is_there_once_on_one_side_and_every_row_is_counted():
    rows = [row_of(number % 40, CHATS) for number in range(80)]
    found = made([*rows, {"chosen": [], "rejected": []}, {"chosen": "a", "rejected": "b"}])
    ids = [prompt.id for prompt in (*found.train, *found.held_out)]
    assert len(ids) == len(set(ids)) == 40
    assert found.counts["repeats"] == 40
    assert (found.counts["empty_chat"], found.counts["no_common_prompt"]) == (1, 1)
    assert sum(found.counts.values()) == 82


def test_a_chats_prompt_keeps_its_messages_and_every_prompt_its_row():
    rows = [row_of(number, CHATS) for number in range(20)]
    found = made(rows)
    for prompt in (*found.train, *found.held_out):
        row = json.loads(prompt.columns)
        assert row in rows
        assert json.loads(prompt.messages) == row["chosen"][:1]


def test_rows_of_their_own_are_held_out_and_a_prompt_of_both_is_held_out():
    rows = [row_of(number, CHATS) for number in range(20)]
    found = made(rows, held_out=[row_of(number, CHATS) for number in range(15, 30)])
    assert len(found.held_out) == 15
    assert len(found.train) == 15
    assert found.counts["held_out_too"] == 5
    assert not {prompt.id for prompt in found.train} & {prompt.id for prompt in found.held_out}


@pytest.mark.parametrize(("too_long", "tokens"), [("drop", None), ("keep_end", 4), ("keep_start", 4)])
def test_a_long_prompt_of_texts_is_dropped_or_cut(too_long, tokens):
    rows = [row_of(number, "standard explicit") for number in range(40)]
    if tokens is None:
        with pytest.raises(DataError, match="40 too long"):
            made(rows, max_tokens=4, too_long=too_long)
    else:
        found = made(rows, max_tokens=4, too_long=too_long, eval_fraction=0.5)
        assert {len(prompt.ids) for prompt in (*found.train, *found.held_out)} == {tokens}


def test_without_a_single_prompt_the_first_fault_is_told():
    with pytest.raises(
        DataError,
        match=r"none left for the train side of 9 texts \(9 null\).*; the first row that is no pair: rejected is null",
    ):
        made([{"chosen": "a", "rejected": None}] * 9)


def test_an_empty_prompt_of_texts_is_a_fault_where_texts_begin_with_no_token(monkeypatch):
    monkeypatch.setattr(Words, "encode", lambda self, rows: [self.tokenizer.ids(text) for text in rows])
    empty = {"prompt": "", "chosen": "a", "rejected": "b"}
    found = made([empty, *(row_of(number, "standard explicit") for number in range(40))])
    assert found.counts["no_prompt_token"] == 1
