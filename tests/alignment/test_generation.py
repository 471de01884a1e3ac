"""Answers to prompts: by the chat template where there is one, to any end token, in pieces that make the whole."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from alignment.errors import ConfigError, DataError, ModelError
from alignment.generation import Settings, begun_stop, encode, until_stop, write
from alignment.models import Loaded

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
GREEDY = Settings(max_new_tokens=6, temperature=0)


@pytest.fixture
def chatty(base: Loaded) -> Loaded:
    """The base with a chat template."""
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = TEMPLATE
    return Loaded(base.model, tokenizer, "chatty")


@pytest.fixture(scope="module")
def wide(tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any) -> Loaded:
    """The same with a context of 64 tokens."""
    return Loaded(tiny_gpt2(vocab_size=len(tiny_tokenizer)), tiny_tokenizer, "wide")


def decoded(loaded: Loaded, ids: list[int]) -> str:
    return str(loaded.tokenizer.decode(ids))


def test_a_prompt_is_the_users_turn_where_there_is_a_template(chatty: Loaded) -> None:
    assert decoded(chatty, encode(chatty, "a film")) == "<user>a film\n<assistant>"
    assert decoded(chatty, encode(chatty, "a film", system="be")) == "<system>be\n<user>a film\n<assistant>"
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert decoded(chatty, encode(chatty, messages)) == "<user>a\n<assistant>b\n<user>c\n<assistant>"


def test_a_prompt_is_a_text_to_go_on_with_where_there_is_none_or_none_is_wanted(base: Loaded, chatty: Loaded) -> None:
    plain = base.encode(["a film"])[0]
    assert encode(base, "a film") == plain
    assert encode(chatty, "a film", raw=True) == plain
    assert encode(base, "") == list(base.conventions.opening)


def test_what_is_no_chat_or_needs_a_template_is_refused(base: Loaded, chatty: Loaded) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        encode(base, "a film", system="be brief")
    with pytest.raises(ModelError, match="no chat template"):
        encode(base, [{"role": "user", "content": "a"}])
    with pytest.raises(DataError, match="does not end with a user's turn"):
        encode(chatty, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    with pytest.raises(ConfigError, match="raw"):
        encode(chatty, [{"role": "user", "content": "a"}], raw=True)


def test_the_likeliest_tokens_are_those_of_a_plain_forward_pass(wide: Loaded) -> None:
    import torch

    ids = wide.encode(["a fine film"])[0]
    expected = list(ids)
    for _ in range(6):
        with torch.no_grad():
            expected.append(int(wide.model(torch.tensor([expected])).logits[0, -1].argmax()))
        if expected[-1] in wide.conventions.ends:
            break
    drawn = expected[len(ids) :]
    assert write(wide, ids, GREEDY) == wide.decode([drawn], [drawn[-1] in wide.conventions.ends])[0]


def test_an_answer_ends_at_any_end_token_and_does_not_show_it(wide: Loaded) -> None:
    """The fourth token of an answer is made an end token, in the generation config alone."""
    import torch

    ids = wide.encode(["a fine film"])[0]
    torch.manual_seed(3)
    drawn = wide.model.generate(torch.tensor([ids]), do_sample=True, top_k=0, max_new_tokens=8, pad_token_id=0)
    answer = drawn[0, len(ids) :].tolist()
    assert answer[3] not in answer[:3]
    model = copy.deepcopy(wide.model)
    model.generation_config.eos_token_id = [0, answer[3]]
    model.generation_config.top_k = 0
    found = write(Loaded(model, wide.tokenizer), ids, Settings(max_new_tokens=8, temperature=1.0, seed=3))
    assert found == wide.decode([answer[:3]], [False])[0]


def test_pieces_make_the_whole_and_the_same_seed_the_same_answer(wide: Loaded) -> None:
    ids = wide.encode(["a film"])[0]
    settings = Settings(max_new_tokens=30, temperature=1.0, seed=3)
    pieces: list[str] = []
    whole = write(wide, ids, settings, pieces.append)
    assert "".join(pieces) == whole
    assert len(pieces) > 1
    assert write(wide, ids, settings) == whole
    assert write(wide, ids, replace(settings, seed=4)) != whole


def test_drawing_with_a_seed_leaves_the_programs_own_random_numbers_alone(wide: Loaded) -> None:
    import torch

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    write(wide, wide.encode(["a film"])[0], Settings(max_new_tokens=2, temperature=1.0, seed=1))
    assert torch.equal(torch.rand(1), expected)


def test_an_answer_fits_the_context_and_a_prompt_that_fills_it_is_refused(base: Loaded) -> None:
    ids = base.encode(["a"])[0] * 15
    write(base, ids, Settings(max_new_tokens=99))
    with pytest.raises(ModelError, match=r"prompt has 16 tokens and the model's context 16, .*shorten the prompt"):
        write(base, [*ids, ids[0]], GREEDY)


def test_a_text_that_ends_an_answer_is_cut_off_and_never_shown(wide: Loaded) -> None:
    ids, settings = wide.encode(["a fine film"])[0], Settings(max_new_tokens=40, temperature=1.0, seed=3)
    whole = write(wide, ids, settings)
    stop = next(whole[at : at + 2] for at in range(3, len(whole)) if whole[at : at + 2].isalpha())
    model = copy.deepcopy(wide.model)
    model.generation_config.stop_strings = [stop]
    pieces: list[str] = []
    found = write(Loaded(model, wide.tokenizer), ids, settings, pieces.append)
    assert found == whole[: whole.index(stop)] == "".join(pieces)
    assert write(wide, ids, replace(settings, stop=(stop,))) == found


@pytest.mark.parametrize(
    ("text", "stops", "shown", "held"),
    [("one\nUser: x", ("\nUser:",), "one", 0), ("one\nUs", ("\nUser:", "END"), "one\nUs", 3), ("one", (), "one", 0)],
)
def test_the_beginning_of_a_stop_is_held_back(text: str, stops: tuple[str, ...], shown: str, held: int) -> None:
    assert until_stop(text, stops) == shown
    assert begun_stop(shown, stops) == held


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens = 0"),
        ({"stop": ("",)}, "stop"),
        ({"temperature": -1}, "temperature = -1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Settings(**wrong)
