"""Chats: which values are one, and their token ids as `apply_chat_template` gives them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alignment.config import PromptsConfig
from alignment.data.chat import Chat, clean, fault_of, looks_like_chat, require_messages
from alignment.errors import ConfigError, DataError, ModelError
from alignment.logprobs import score_completions
from tests.alignment import chats
from tests.alignment.chats import CONVERSATIONS, TEMPLATES, assistant, user

SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("style", TEMPLATES)
def test_prompt_and_answer_are_the_ids_of_the_template(style: str) -> None:
    """Ten conversations: the prompt's ids, then the answer's and its end, are those of the whole conversation."""
    names = chats.tokenizer(style)
    chat = Chat(names, PromptsConfig())
    for messages in CONVERSATIONS:
        whole = names.apply_chat_template([*messages, assistant("Yes, of course.")], return_dict=False)
        prompt = chat.encode(messages)
        lead = " " if style == "mistral" else ""
        answer = names(f"{lead}Yes, of course.{chats.ENDS[style]}", add_special_tokens=False)["input_ids"]
        found = [*prompt, *answer]
        assert found == whole[: len(found)]
        assert names.decode(whole[len(found) :]).strip() == ""  # the line break that some write after a turn


@pytest.mark.parametrize("style", TEMPLATES)
def test_log_probs_of_answers_to_chats_are_those_of_a_plain_forward_pass(style: str) -> None:
    names, model = chats.tokenizer(style), chats.model(style)
    chat = Chat(names, PromptsConfig())
    prompts = [chat.encode(messages) for messages in CONVERSATIONS]
    answers = [
        names(f"Answer {number}" * (1 + number % 4), add_special_tokens=False)["input_ids"]
        for number in range(len(prompts))
    ]
    found = score_completions(model, prompts, answers, pad_id=0)
    expected = []
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
        start = len(prompt) - 1
        expected.append(sum(logits[start + place, token].item() for place, token in enumerate(answer)))
    lengths = np.array(list(map(len, answers)))
    assert np.abs(found - np.array(expected)).max() / lengths.max() < 1e-5


def test_the_configured_template_and_its_variables_take_the_place_of_the_tokenizers(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{% if loud %}!{% endif %}{% for message in messages %}{{ message.content }}{% endfor %}")
    names = chats.tokenizer("chatml")
    config = PromptsConfig(chat_template=str(file), chat_template_kwargs={"loud": True})
    assert names.decode(Chat(names, config).encode([user("Hi")])) == "!Hi"


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (" \n", "is empty")])
def test_a_template_that_cannot_be_read_is_one_line(tmp_path: Path, content: str | None, reason: str) -> None:
    file = tmp_path / "template.jinja"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=rf"prompts\.chat_template \S+: .*{reason}.*; give a file in Jinja|{reason}"):
        Chat(chats.tokenizer("chatml"), PromptsConfig(chat_template=str(file)))


def test_a_tokenizer_without_a_template_is_told_with_the_way_out() -> None:
    names = chats.tokenizer("chatml")
    names.chat_template = None
    with pytest.raises(ModelError, match=r"^base\.model x: its tokenizer has no chat template.*prompts\.chat_template"):
        Chat(names, PromptsConfig(), "base.model x")


def test_a_template_that_fails_is_one_line_with_its_reason() -> None:
    chat = Chat(chats.tokenizer("gemma"), PromptsConfig(), "base.model x")
    with pytest.raises(DataError, match=r"^base\.model x: its chat template fails \(.*System role not supported\)"):
        chat.encode([SYSTEM, user("Hi")])


@pytest.mark.parametrize("style", TEMPLATES)
def test_the_token_that_ends_an_answer_is_read_off_the_template(style: str) -> None:
    names = chats.tokenizer(style)
    assert Chat(names, PromptsConfig()).turn_end() == names.convert_tokens_to_ids(chats.ENDS[style])


def test_the_system_prompt_comes_first_unless_a_chat_brings_one() -> None:
    chat = Chat(chats.tokenizer("chatml"), PromptsConfig(system="Be kind."))
    assert chat.with_system([user("Hi")]) == [{"role": "system", "content": "Be kind."}, user("Hi")]
    assert chat.with_system([SYSTEM, user("Hi")]) == [SYSTEM, user("Hi")]


@pytest.mark.parametrize(
    "messages", [*CONVERSATIONS, [SYSTEM, user("Hi")], [{"role": "developer", "content": "x"}, user("a")]]
)
def test_a_chat_that_ends_with_the_users_turn_has_no_fault(messages: list[dict[str, str]]) -> None:
    assert fault_of(messages) == ""
    assert require_messages(messages, "row 1") == messages


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("Hi", "no_chat"),
        ({"role": "user"}, "no_chat"),
        (None, "no_chat"),
        ([], "empty_chat"),
        ([{"role": "user"}], "no_role_or_content"),
        ([{"content": "a"}], "no_role_or_content"),
        ([{"role": "user", "content": ["a"]}], "no_role_or_content"),
        (["Hi"], "no_role_or_content"),
        ([assistant("a"), user("b")], "roles_out_of_order"),
        ([user("a"), user("b")], "roles_out_of_order"),
        ([user("a"), SYSTEM, user("b")], "roles_out_of_order"),
        ([{"role": "wizard", "content": "a"}], "roles_out_of_order"),
        ([SYSTEM], "not_the_users_turn"),
        ([user("a"), assistant("b")], "not_the_users_turn"),
    ],
)
def test_what_is_no_chat_is_named(value: object, fault: str) -> None:
    assert fault_of(value) == fault
    with pytest.raises(DataError, match=r"^row 7 .*; "):
        require_messages(value, "row 7")


def test_fields_that_are_null_are_left_out_and_others_kept() -> None:
    assert clean([{"role": "user", "content": "a", "name": None, "id": 3}]) == [
        {"role": "user", "content": "a", "id": 3}
    ]


@pytest.mark.parametrize("text", ['[{"role": "user", "content": "a"}]', "[{'role': 'user', 'content': 'a'}]"])
def test_a_list_of_messages_that_was_written_as_a_string_is_known(text: str) -> None:
    assert looks_like_chat(text)


@pytest.mark.parametrize("text", ["Hi", "[1, 2]", "What is [{'a': 1}] in Python?", '{"a": 1}'])
def test_a_plain_prompt_is_not_taken_for_one(text: str) -> None:
    assert not looks_like_chat(text)


def test_a_template_that_asks_for_more_than_a_users_turn_tells_no_end(tmp_path: Path) -> None:
    """The question is only for a warning: a template that wants a system message must not stop the run."""
    names = chats.tokenizer("chatml")
    names.chat_template = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + TEMPLATES["chatml"]
    )
    assert Chat(names, PromptsConfig()).turn_end() is None
    assert Chat(names, PromptsConfig(system="S")).turn_end() == names.convert_tokens_to_ids("<|im_end|>")
