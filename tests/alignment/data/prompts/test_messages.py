"""Chats as prompts: their ids, what becomes of long and of broken ones, and rows of their own for the evaluation."""

import json
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config
from alignment.data.prompts.messages import messages
from alignment.data.prompts.source import Cut, Prompts, Rows
from alignment.errors import DataError
from alignment.models import Loaded
from alignment.rows import Text
from tests.alignment import chats
from tests.alignment.chats import CONVERSATIONS, assistant, user


@pytest.fixture(scope="module")
def base() -> Loaded:
    return Loaded(chats.model("chatml"), chats.tokenizer("chatml"), "base.model x")


def config(**prompts: Any) -> AlignConfig:
    settings = {"source": "messages", "eval_count": 2, "min_eval": 2} | prompts
    models = {"base": {"model": "x"}, "reward": {"model": "y"}}
    return build_config(models | {"prompts": settings, "sampling": {"total_tokens": 400}})


def rows(values: list[Any]) -> list[Text]:
    return [{"text": json.dumps(value), "label": -1, "columns": ""} for value in values]


def made(base: Loaded, values: list[Any], held_out: list[Any] | None = None, **prompts: Any) -> Prompts:
    own = None if held_out is None else (lambda: rows(held_out))
    return messages(Rows(lambda: rows(values), own), base, config(**prompts), set())


ASKED = [f"Question {number}" for number in range(20)]


def test_each_prompt_is_what_the_template_gives_of_its_chat(base: Loaded) -> None:
    found = made(base, CONVERSATIONS)
    by_text = {cut.messages: cut for cut in (*found.train, *found.held_out)}
    for chat in CONVERSATIONS:
        cut = by_text[json.dumps(chat, ensure_ascii=False)]
        expected = base.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert list(cut.ids) == expected


def test_a_plain_prompt_is_the_users_first_turn_and_the_system_prompt_goes_before(base: Loaded) -> None:
    found = made(base, ASKED, system="Be kind.")
    first = found.train[0]
    chat = json.loads(first.messages)
    assert chat[0] == {"role": "system", "content": "Be kind."}
    assert chat[1]["content"] in ASKED
    assert base.tokenizer.decode(first.ids) == (
        f"<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n{chat[1]['content']}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


LONG = [user("x" * 100), assistant("y" * 100), user("z" * 100), assistant("w"), user("last")]


def the_long_one(found: Prompts) -> Cut | None:
    return next((cut for cut in (*found.train, *found.held_out) if "last" in cut.messages), None)


def test_a_chat_that_is_too_long_is_dropped_and_counted(base: Loaded) -> None:
    found = made(base, [*ASKED, LONG], max_tokens=200)
    assert the_long_one(found) is None
    assert found.counts["too_long"] == 1
    assert sum(found.counts.values()) == 21


def test_or_loses_its_oldest_turns_and_keeps_its_system_message(base: Loaded) -> None:
    found = made(base, [*ASKED, LONG], max_tokens=250, too_long="keep_end", system="S", count=40, eval_count=20)
    cut = the_long_one(found)
    assert cut is not None
    assert [turn["content"] for turn in json.loads(cut.messages)] == ["S", "z" * 100, "w", "last"]
    assert len(cut.ids) <= 250


def test_a_last_turn_that_is_too_long_alone_is_dropped(base: Loaded) -> None:
    found = made(base, [*ASKED, "x" * 300], max_tokens=250, too_long="keep_end")
    assert found.counts["too_long"] == 1


def test_broken_chats_are_counted_by_their_fault_and_the_first_is_shown(base: Loaded, caplog: Any) -> None:
    broken = [[], [assistant("a")], [user("a"), assistant("b")], [{"role": "user"}]]
    found = made(base, [*ASKED, *broken])
    assert {name: found.counts[name] for name in found.counts if name not in ("train", "eval", "not_needed")} == {
        "empty_chat": 1,
        "roles_out_of_order": 1,
        "not_the_users_turn": 1,
        "no_role_or_content": 1,
    }
    (record,) = caplog.records
    assert "4 rows are left out" in record.getMessage()
    assert "is an empty chat" in record.getMessage()


def test_where_every_chat_is_broken_the_error_says_how(base: Loaded) -> None:
    with pytest.raises(
        DataError, match=r"none left for the train side .*roles out of order.*user and assistant take turns"
    ):
        made(base, [[assistant("a")]] * 3)


def test_lists_written_as_strings_stop_at_once(base: Loaded) -> None:
    with pytest.raises(DataError, match=r"holds lists of messages as strings.*store them as lists of objects"):
        made(base, [json.dumps([user("Hi")])])


def test_a_template_that_ends_answers_with_a_token_that_is_no_end_is_told(caplog: Any) -> None:
    model, names = chats.model("chatml"), chats.tokenizer("chatml")
    names.eos_token = "<pad>"
    model.config.eos_token_id = model.generation_config.eos_token_id = 0
    made(Loaded(model, names, "base.model x"), ASKED)
    (record,) = caplog.records
    assert "ends an answer with '<|im_end|>'" in record.getMessage()


def test_rows_of_their_own_are_held_out_and_a_prompt_on_both_sides_is_one_of_them(base: Loaded) -> None:
    found = made(base, ASKED, held_out=ASKED[:3], eval_count=3)
    assert {json.loads(cut.messages)[0]["content"] for cut in found.held_out} == set(ASKED[:3])
    assert len(found.train) == 17
    assert found.counts == {"train": 17, "eval": 3, "held_out_too": 3}
    assert not {cut.id for cut in found.train} & {cut.id for cut in found.held_out}
