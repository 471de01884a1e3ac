"""The example with chats: its prompts are chats that end with a question, and its reward is not won by cheap tricks."""

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from alignment.config import load_config
from alignment.data.chat import fault_of

FOLDER = Path(__file__).parents[2] / "examples" / "chat"
CHATS = [json.loads(line)["messages"] for line in (FOLDER / "prompts.jsonl").read_text("utf-8").splitlines()]
QUESTION = "Why do cats purr when they rest?"
GOOD = "Cats purr because small muscles in their throat move quickly. It often means that they feel safe."


@pytest.fixture(scope="module")
def module() -> Any:
    spec = importlib.util.spec_from_file_location("chat_reward", FOLDER / "reward.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def score(module: Any) -> Any:
    """`score(answer)` to the question about cats."""

    def of(answer: str, question: str = QUESTION) -> float:
        [found] = module.reward(prompts=[question], completions=[answer])
        return float(found)

    return of


# Prompts


def test_every_row_is_a_chat_that_the_model_can_answer() -> None:
    assert [(chat, fault) for chat in CHATS if (fault := fault_of(chat, last=("user",)))] == []


def test_no_question_comes_twice() -> None:
    asked = Counter(" ".join(chat[-1]["content"].lower().split()) for chat in CHATS)
    assert [text for text, count in asked.items() if count > 1] == []


def test_there_are_a_few_hundred_short_ones_with_and_without_system_message_and_turns() -> None:
    shapes = Counter("".join(message["role"][0] for message in chat) for chat in CHATS)
    assert set(shapes) == {"u", "su", "uau"}
    assert min(shapes.values()) >= 20
    assert len(CHATS) >= 350
    assert max(len(message["content"]) for chat in CHATS for message in chat) <= 200


def test_the_configuration_asks_for_no_more_than_there_are() -> None:
    config = load_config(FOLDER / "chat.yaml", {})
    assert config.prompts.count + config.prompts.eval_count <= len(CHATS)
    assert config.gates == type(config.gates)()


# Reward


def test_a_good_answer_gets_all_the_points(score: Any) -> None:
    assert score(GOOD) == 4.0


def test_each_sentence_beyond_three_costs_half_a_point(score: Any) -> None:
    more = ["They rest then.", "Kittens learn it early.", "Lions cannot do it.", "Vets study the sound."]
    assert [score(" ".join([GOOD, *more[:count]])) for count in range(4)] == [4.0, 4.0, 3.5, 3.0]


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        ("", "nothing"),
        (" \n ", "nothing"),
        ("!!!", "no word"),
        ("Yes.", "one word"),
        (GOOD.removesuffix("."), "not finished"),
        (GOOD[:-20], "cut in the middle"),
        (f"{GOOD}\n\n1.", "a list that was broken off"),
        (QUESTION, "an echo of the question"),
        ("Thank you for asking, and have a lovely day.", "says nothing about it"),
        ("cats purr " * 20 + ".", "repeats itself"),
        ("Cats purr because they rest. " * 3, "repeats a sentence"),
        ("Cats purr. Why? Who knows? Do you? What is rest?", "asks back"),
        ("\n".join(f"{n}. Cats purr to rest in way number {n}." for n in range(1, 9)), "a long list"),
        ("\N{GRINNING FACE}" * 30, "no word"),
    ],
)
def test_what_a_model_may_try_gets_less(score: Any, worse: str, why: str) -> None:
    assert score(worse) <= score(GOOD) - 0.5, why


def test_nothing_is_the_worst(score: Any) -> None:
    assert score("") < score("Yes.") < score("Cats purr.") < score(GOOD)


@pytest.mark.parametrize("answer", ["It is 42.", 'They say "yes."', "Good (and safe).", "It costs 3.5 euros!"])
def test_a_sentence_may_end_in_several_ways(module: Any, answer: str) -> None:
    assert module.ends_properly(answer) == 1.0
    assert module.sentences(answer) == 1


def test_a_list_has_as_many_sentences_as_lines(module: Any) -> None:
    assert module.sentences("Here are three:\n1. One.\n2) Two\n- Three. And more.\n\n") == 5


def test_it_is_called_as_trl_calls_it(module: Any) -> None:
    """Plain texts, or chats with the completion as messages, and whatever columns there are: the score is the same."""
    plain = module.reward(prompts=[QUESTION], completions=[GOOD], trainer_state=None)
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": QUESTION}]
    chat = module.reward(prompts=[turns], completions=[[{"role": "assistant", "content": GOOD}]], topic=["cats"])
    assert plain == chat == [4.0]
