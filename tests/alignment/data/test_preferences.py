"""Rows of preference data: TRL's own functions are the oracle of what is prompt and what completion, and each fault."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data.preferences import FAULTS, FaultyRowError, preference


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


SYSTEM = {"role": "system", "content": "Be brief."}
SKY = [user("What colour is the sky?")]
GOOD, BAD = [assistant("Blue.")], [assistant("Green.")]


def fault_of(row):
    with pytest.raises(FaultyRowError) as raised:
        preference(row)
    return raised.value.name


@pytest.mark.parametrize(
    ("row", "format", "prompt"),
    [
        (
            {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
            "standard, explicit prompt",
            "The sky is",
        ),
        ({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "standard, implicit prompt", "The sky is"),
        ({"prompt": SKY, "chosen": GOOD, "rejected": BAD}, "conversational, explicit prompt", SKY),
        ({"chosen": SKY + GOOD, "rejected": SKY + BAD}, "conversational, implicit prompt", SKY),
        (
            {"prompt": "What colour is the sky?", "chosen": [SYSTEM, *SKY, *GOOD], "rejected": [SYSTEM, *SKY, *BAD]},
            "conversational, implicit prompt",
            [SYSTEM, *SKY],
        ),
    ],
)
def test_each_format_of_trl(row, format, prompt):
    found = preference(row)
    sides = (" blue.", " green.") if isinstance(prompt, str) else (GOOD, BAD)
    assert (found.format, found.prompt, (found.chosen, found.rejected)) == (format, prompt, sides)
    assert (found.chosen_score, found.rejected_score, found.margin, found.gap) == (None,) * 4


def test_what_a_template_may_read_beside_role_and_content_is_kept_and_nulls_of_a_table_are_not():
    row = {"prompt": [{**SKY[0], "name": "Ann", "tool_calls": None}], "chosen": GOOD, "rejected": BAD}
    assert preference(row).prompt == [{**SKY[0], "name": "Ann"}]


@pytest.mark.parametrize(
    ("columns", "scores", "margin", "gap"),
    [
        ({"score_chosen": 8.5, "score_rejected": 7}, (8.5, 7.0), None, 1.5),
        ({"score_chosen": "8.5", "score_rejected": " 9 "}, (8.5, 9.0), None, -0.5),
        ({"score_chosen": None, "score_rejected": "", "margin": 2}, (None, None), 2.0, 2.0),
        ({"score_chosen": 3, "score_rejected": 1, "margin": 9}, (3.0, 1.0), 9.0, 2.0),
    ],
)
def test_scores_and_margin(columns, scores, margin, gap):
    found = preference({"prompt": SKY, "chosen": GOOD, "rejected": BAD} | columns)
    assert (found.chosen_score, found.rejected_score) == scores
    assert (found.margin, found.gap) == (margin, gap)


TEXTS = st.text(alphabet="ab \n", min_size=1, max_size=8)
TURNS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4)


@settings(deadline=None)
@given(chosen=TEXTS, rejected=TEXTS)
def test_the_common_prompt_of_texts_is_trls(chosen, rejected):
    from trl import extract_prompt

    row = {"chosen": chosen, "rejected": rejected}
    alike = [one == other for one, other in zip(chosen, rejected, strict=False)]
    shared = [*alike, False].index(False)
    if chosen == rejected:
        assert fault_of(row) == "chosen_is_rejected"
    elif not shared or shared == len(min(chosen, rejected, key=len)) == 1 or chosen[:shared] == " ":
        assert fault_of(row) == "no_common_prompt"
    else:
        found = preference(row)
        assert {"prompt": found.prompt, "chosen": found.chosen, "rejected": found.rejected} == extract_prompt(row)


@settings(deadline=None)
@given(chosen=TURNS, rejected=TURNS)
def test_the_common_prompt_of_conversations_is_trls(chosen, rejected):
    from trl import extract_prompt

    row = {
        side: [message for number, answer in enumerate(answers) for message in (user(f"{number}?"), assistant(answer))]
        for side, answers in (("chosen", chosen), ("rejected", rejected))
    }
    if chosen == rejected:
        assert fault_of(row) == "chosen_is_rejected"
        return
    expected = extract_prompt(row)
    if expected["chosen"][0]["role"] == "user":  # one conversation is the other's beginning, and parts at a question
        return
    found = preference(row)
    assert {"prompt": found.prompt, "chosen": found.chosen, "rejected": found.rejected} == expected


# a row, the fault's name, and a part of what people are told
FAULTY = [
    ({"prompt": "a", "chosen": "b"}, "missing_column", "there is no `rejected`"),
    ({"prompt": "a", "chosen": "b", "rejected": None}, "null", "rejected is null"),
    ({"prompt": None, "chosen": "b", "rejected": "c"}, "null", "prompt is null"),
    ({"prompt": "a", "chosen": "b", "rejected": 3}, "not_text", "rejected is 3"),
    (
        {"prompt": SKY, "chosen": json.dumps(GOOD), "rejected": BAD},
        "messages_in_a_text",
        "chosen is a text that spells messages",
    ),
    ({"prompt": "a", "chosen": "b", "rejected": BAD}, "mixed_formats", "one of chosen and rejected is a text"),
    ({"prompt": SKY, "chosen": "b", "rejected": "c"}, "mixed_formats", "the prompt is a conversation"),
    ({"prompt": [], "chosen": GOOD, "rejected": BAD}, "empty_chat", "prompt has no message"),
    ({"prompt": SKY, "chosen": [], "rejected": BAD}, "empty_chat", "chosen has no message"),
    ({"prompt": SKY, "chosen": ["Blue."], "rejected": BAD}, "not_messages", "message 1 of chosen is 'Blue.'"),
    (
        {"prompt": [{"from": "human", "value": "?"}], "chosen": GOOD, "rejected": BAD},
        "not_messages",
        "message 1 of prompt has null as role",
    ),
    (
        {"prompt": SKY, "chosen": [{"role": "assistant", "content": None}], "rejected": BAD},
        "not_messages",
        "has null as content",
    ),
    ({"prompt": GOOD, "chosen": GOOD, "rejected": BAD}, "roles_out_of_order", "message 1 is the assistant's, first"),
    ({"prompt": [*SKY, SYSTEM], "chosen": GOOD, "rejected": BAD}, "roles_out_of_order", "system's, after the user's"),
    ({"prompt": SKY * 2, "chosen": GOOD, "rejected": BAD}, "roles_out_of_order", "message 2 is the user's, after"),
    ({"prompt": [*SKY, *GOOD], "chosen": GOOD, "rejected": BAD}, "roles_out_of_order", "message 3 is the assistant's"),
    ({"prompt": SKY, "chosen": SKY + GOOD, "rejected": SKY + BAD}, "roles_out_of_order", "message 2 is the user's"),
    ({"prompt": SKY, "chosen": GOOD + SKY, "rejected": BAD}, "roles_out_of_order", "from the assistant's message to"),
    ({"chosen": SKY, "rejected": SKY + BAD}, "roles_out_of_order", "from the user's message to the user's"),
    ({"chosen": GOOD + SKY, "rejected": GOOD + BAD}, "roles_out_of_order", "message 1 is the assistant's, first"),
    (
        {"chosen": [user("How?"), *GOOD], "rejected": [user("Why?"), *BAD]},
        "prompts_differ",
        "they part at",
    ),
    (
        {"prompt": "Why?", "chosen": SKY + GOOD, "rejected": SKY + BAD},
        "prompts_differ",
        "the prompt 'Why?' is no message of both conversations",
    ),
    ({"chosen": "blue", "rejected": "green"}, "no_common_prompt", "begin with no text that they share"),
    ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen_is_rejected", "both are 'b'"),
    ({"chosen": SKY + GOOD, "rejected": SKY + GOOD}, "chosen_is_rejected", "both are"),
    (
        {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": "good", "score_rejected": 1},
        "score_is_no_number",
        "score_chosen is 'good'",
    ),
    (
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": True},
        "score_is_no_number",
        "margin is true",
    ),
    (
        {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 1.0},
        "one_score",
        "there is a score_chosen and no score_rejected",
    ),
]


@pytest.mark.parametrize(("row", "name", "told"), FAULTY)
def test_a_faulty_row_is_told_by_name(row, name, told):
    with pytest.raises(FaultyRowError) as raised:
        preference(row)
    assert raised.value.name == name
    assert told in str(raised.value)


def test_every_fault_of_a_row_alone_has_a_case():
    of_a_model = {"template_failed", "no_prompt_token", "too_long"}
    assert {name for _, name, _ in FAULTY} | of_a_model == set(FAULTS)
