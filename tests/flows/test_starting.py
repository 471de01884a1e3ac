"""A first configuration: whatever the answers, YAML that is valid, with their consequences in it."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from alignment.config import AlignConfig, build_config
from alignment.data.guessing import Guess
from alignment.errors import ConfigError
from alignment.yaml_file import parse_yaml
from flows.starting import Answers, Size, default_reward, draft, is_chat_model, total_tokens

TEXTS = Guess("texts", "text", "stars", "5", "1")
PROMPTS, CHATS, PAIRS = Guess("prompts", "question"), Guess("chats", "messages"), Guess("pairs", "chosen")
SIZES: tuple[Size, ...] = ("cpu", "gpu")


def answers(**changes: Any) -> Answers:
    given: dict[str, Any] = {"model": "my/model", "data": "my.csv", "guess": TEXTS, "reward": "train"}
    return Answers(**(given | {"size": "cpu", "name": "mine"} | changes))


def config(**changes: Any) -> AlignConfig:
    return build_config(parse_yaml(draft(answers(**changes))))


@pytest.mark.parametrize(
    ("guess", "reward", "size"),
    [
        each
        for each in itertools.product(
            (TEXTS, PROMPTS, CHATS, PAIRS), ("train", "none", "judge", "r.py:score", "my/reward"), SIZES
        )
        if (each[1] != "train" or each[0] is TEXTS) and (each[1] != "none" or each[0] is PAIRS)
    ],
    ids=lambda value: value.holds if isinstance(value, Guess) else value,
)
def test_every_combination_is_valid_and_each_note_is_short(guess: Guess, reward: str, size: Size) -> None:
    text = draft(answers(guess=guess, reward=reward, size=size, judge_model="a judge"))
    made = build_config(parse_yaml(text))
    assert (made.data.path, made.registry.model_name) == ("my.csv", "mine")
    assert made.reward.kind == {"none": "none", "judge": "judge", "r.py:score": "function"}.get(reward, "classifier")
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("data", ["grammar", "my.csv"])
def test_a_model_can_be_trained_here(size: Size, data: str) -> None:
    guess = Guess("texts", "text", "label", "1") if data == "grammar" else TEXTS
    made = config(model="train", data=data, guess=guess, size=size)
    assert (made.base.model, made.reward.model, made.dpo.adapter) == ("train", "train", "none")
    assert made.evaluation.judge == ("grammar" if data == "grammar" else "none")


def test_what_the_data_holds_decides_columns_prompts_and_pairs() -> None:
    texts = config().data
    assert (texts.text_column, texts.label_column, texts.positive_label, texts.negative_label) == (
        ("text", "stars", "5", "1")
    )
    assert config(reward="my/reward").data.label_column == ""
    assert config(guess=PROMPTS, reward="r.py:f").prompts.source == "column"
    assert config(guess=PROMPTS, reward="r.py:f", model="my/model-Instruct").prompts.source == "messages"
    assert config(guess=CHATS, reward="r.py:f").prompts.source == "messages"
    given = config(guess=PAIRS, reward="none")
    assert (given.prompts.source, given.pairs.source) == ("pairs", "given")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reward": ""}, "reward: texts without labels need something that scores answers"),
        ({"model": "train", "guess": CHATS, "reward": "r.py:f"}, "my.csv holds chats; give a folder"),
        ({"guess": PROMPTS}, "learns from labelled texts, and my.csv holds prompts"),
        ({"reward": "none"}, "`none` goes with pairs alone"),
        ({"reward": "judge"}, "judge_model: is empty"),
        ({"name": "a/b"}, "registry.model_name = 'a/b'"),
    ],
)
def test_answers_that_do_not_go_together_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        draft(answers(**changes))


def test_names_that_yaml_would_read_otherwise_are_quoted() -> None:
    for data in ("null", "~", "a: b.csv", "# 1.csv", 'quote".csv', "é.csv", "- x", "{a}.csv"):
        assert config(data=data, reward="my/reward").data.path == data


def test_the_default_reward_is_what_the_data_has() -> None:
    assert [default_reward(each) for each in (TEXTS, PROMPTS, CHATS, PAIRS)] == ["train", "", "", "none"]
    assert default_reward(Guess("texts", "text")) == ""


def test_a_folder_shows_its_template_and_its_context(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_positions": 32}), encoding="utf-8")
    assert not is_chat_model(str(tmp_path))
    assert total_tokens(answers(model=str(tmp_path))) == 32
    assert total_tokens(answers(model=str(tmp_path), guess=CHATS)) == 32
    assert total_tokens(answers(guess=CHATS)) == 192
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "x"}', encoding="utf-8")
    assert is_chat_model(str(tmp_path))
    for name, chat in (("org/Llama-3-8B-Instruct", True), ("google/gemma-2b-it", True), ("gpt2", False)):
        assert is_chat_model(name) == chat
