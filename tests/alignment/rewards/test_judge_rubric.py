"""Rubrics filled in with a sample's texts, and what is read off a judge's answers."""

from pathlib import Path
from typing import Any

import pytest

from alignment.config import JudgeConfig
from alignment.errors import ConfigError, DataError
from alignment.rewards.judge_rubric import (
    fill,
    judge_source,
    read_pair_rubric,
    read_rubric,
    read_score,
    read_verdict,
    request,
)

PLAIN: dict[str, Any] = {"prompt": "Once upon", "completion": " a time", "messages": [], "columns": {}}
CHAT: dict[str, Any] = {
    "prompt": "<|user|>Hello<|end|>",
    "completion": "Good day.",
    "messages": [{"role": "system", "content": "Be polite."}, {"role": "user", "content": "Hello"}],
    "columns": {"topic": "greetings", "reference": ["Hi."]},
}
CONFIG = JudgeConfig(model="grader")


def filled(template: str, sample: dict[str, Any], config: JudgeConfig = CONFIG) -> str:
    return fill(template, sample, config, completion=sample["completion"])


# filled in


def test_a_plain_prompt_is_shown_as_it_is() -> None:
    assert filled("{prompt}|{completion}|{conversation}", PLAIN) == "Once upon| a time|Once upon a time"


def test_a_chat_is_shown_by_its_turns_and_without_its_template_s_signs() -> None:
    turns = "System: Be polite.\n\nUser: Hello"
    assert filled("{prompt}", CHAT) == turns
    assert filled("{conversation}", CHAT) == f"{turns}\n\nAssistant: Good day."
    one = CHAT | {"messages": CHAT["messages"][1:]}
    assert filled("{prompt}|{conversation}", one) == "Hello|User: Hello\n\nAssistant: Good day."


def test_a_turn_that_calls_a_tool_is_shown_by_its_other_fields() -> None:
    """Such a message has no content once its nulls are left out."""
    calling = {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]}
    chat = [{"role": "user", "content": "Rain?"}, calling, {"role": "tool", "name": "weather", "content": "no"}]
    shown = '{"tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]}'
    assert filled("{prompt}", CHAT | {"messages": chat}) == f"User: Rain?\n\nAssistant: {shown}\n\nTool: no"
    pictured = [{"role": "user", "image": "cat.png"}]
    assert filled("{prompt}", CHAT | {"messages": pictured}) == '{"image": "cat.png"}'


def test_columns_are_shown_together_or_by_name() -> None:
    assert filled("{columns.topic}: {columns.reference}", CHAT) == 'greetings: ["Hi."]'
    assert filled("{columns}", CHAT) == '{"topic": "greetings", "reference": ["Hi."]}'
    with pytest.raises(
        DataError, match=r"\{columns\.author\}, and the rows' columns are topic, reference; name it in da"
    ):
        filled("{columns.author}", CHAT)


def test_the_scale_is_shown() -> None:
    assert filled("{scale_min}-{scale_max}", PLAIN, JudgeConfig(scale_min=0, scale_max=2.5)) == "0-2.5"


def test_what_a_text_says_is_filled_in_no_further() -> None:
    """A completion cannot make the judge be shown something else, nor braces in it fail."""
    sample = PLAIN | {"prompt": "{completion} {columns.x} {0} {{", "completion": "{prompt}"}
    assert filled("{prompt}|{completion}", sample) == "{completion} {columns.x} {0} {{|{prompt}"


def test_other_braces_in_a_rubric_stay() -> None:
    assert filled('Answer as {"score": 7}. {completion}', PLAIN) == 'Answer as {"score": 7}.  a time'


def test_a_text_that_is_no_unicode_can_be_sent() -> None:
    assert request(CONFIG, "a \udc80 b")["messages"] == [{"role": "user", "content": "a ? b"}]


# files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"Grade {complation}: {completion}",
            r"\{complation\} is no placeholder; it takes \{prompt\}, .* \{columns\.NAME\}$",
        ),
        (b"Grade {prompt}", r"shows the judge no text; write \{completion\}"),
        (b" \n", "is empty; write what the judge is asked, or leave the field out"),
        (b"\xff", "is not UTF-8 text"),
        (None, "No such file or directory; give a text file"),
    ],
)
def test_a_rubric_that_cannot_be_used_is_named(tmp_path: Path, text: bytes | None, message: str) -> None:
    file = tmp_path / "rubric.txt"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(ConfigError, match=rf"^reward\.judge\.rubric[^\n]*{message}"):
        read_rubric(JudgeConfig(rubric=str(file)))


def test_a_rubric_of_pairs_shows_both(tmp_path: Path) -> None:
    file = tmp_path / "rubric.txt"
    file.write_text("{first} or {completion}?", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"pair_rubric: \{completion\} is no placeholder"):
        read_pair_rubric(JudgeConfig(pair_rubric=str(file)))
    file.write_text("{first} or what?", encoding="utf-8")
    with pytest.raises(ConfigError, match="has to show the judge both texts"):
        read_pair_rubric(JudgeConfig(pair_rubric=str(file)))


def test_the_built_in_rubrics_ask_for_what_is_read_off_the_answers() -> None:
    asked = filled(read_rubric(CONFIG), PLAIN)
    assert "Score: <a number from 1 to 10>" in asked
    assert "{" not in asked
    compared = fill(read_pair_rubric(CONFIG), PLAIN, CONFIG, first=" a time", second=" a mattress")
    assert "<A>\n a time\n</A>\n\n<B>\n a mattress\n</B>" in compared
    assert "{" not in compared


# answers


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Score: 7", 7),
        ("It rambles.\nscore: 2.5", 2.5),
        ("**Score:** 8", 8),
        ("**Score: 8**", 8),
        ("Score (1 to 10): 6", 6),
        ("Score: 7/10", 7),
        ("Score: 7 / 10.0, no more", 7),
        ("Score: 7 out of 10", 7),
        ("Score: 7/100", None),
        ("Score: 3/5", None),
        ("Score: 3 out of 5", None),
        ("Score: 7.", 7),
        ("Score: [9]", 9),
        ('{"reason": "fine", "score": 4}', 4),
        ("The text says Score: 10 about itself.\nScore: 1", 1),
        ("<think>Score: 3? No.</think>\nScore: 5", 5),
        ("<think>Score: 3, or perhaps", None),
        ("Score: 11", None),
        ("Score: 0", None),
        ("Score: -3", None),
        ("Score: 7,5", None),
        ("Score: 17,5", None),
        ("Score: 7-8", None),
        ("Score: 7 - 8", None),
        ("Score: 7 – 8.", None),
        ("**Score: 7 - 8**", None),
        ("Score: 7 - 8 out of 10", None),
        ("Score: 7.5-8", None),
        ("Score = 7-8", None),
        ("Score: 7\n- 3 points lost", 7),
        ("Score: 7\n\n– 3 points lost", 7),
        ("Score: 8 – 2 issues", 8),
        ("Score: 8 – 2.5 points lost", 8),
        ("Score: 8 – 2 of the facts are wrong", 8),
        ("Score: 8 - nothing to add", 8),
        ("Final Score = 8", 8),
        ("**Score** = 8", 8),
        ("Score = 8: 2 issues", 8),
        ("Score (bad = 1, good = 10): 7", 7),
        (r"Score: \boxed{7}", 7),
        (r"Score: $\boxed{7}$", 7),
        ("Score: seven", None),
        ("I cannot grade this in 7 words.", None),
        ("underscore: 4", None),
        ("", None),
    ],
)
def test_the_number_behind_the_last_score_counts_where_it_is_on_the_scale(answer: str, score: float | None) -> None:
    assert read_score(answer, CONFIG) == score


def test_a_pattern_says_where_another_rubric_s_number_stands() -> None:
    config = JudgeConfig(pattern=r"\[\[(.*?)\]\]", scale_min=-1)
    assert read_score("[[2]] and then [[-0.5]]", config) == -0.5
    assert read_score("[[2]]/100", config) == 2  # it says itself what counts
    assert read_score("Grade: none", JudgeConfig(pattern=r"Grade: (?:none|(\d))")) is None
    for answer in ("Score: 4", "[[good]]", "[[nan]]", "[[inf]]"):
        assert read_score(answer, config) is None


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Preferred: A", "first"),
        ("Both fine, preferred: A at first.\n**Preferred:** B", "second"),
        ("Preferred: tie", "tie"),
        ("Preferred: [[b]]", "second"),
        ("Preferred: Another", None),
        ("A is better", None),
        ("<think>Preferred: A", None),
    ],
)
def test_the_last_verdict_counts(answer: str, verdict: str | None) -> None:
    assert read_verdict(answer) == verdict


# the key


def test_what_decides_a_score_is_in_the_key_and_nothing_else(tmp_path: Path) -> None:
    def source(**changes: Any) -> dict[str, Any]:
        config = JudgeConfig(**({"model": "grader"} | changes))
        return judge_source(config, read_rubric(config))

    same = tmp_path / "same.txt"
    same.write_text(read_rubric(CONFIG), encoding="utf-8")
    idle: tuple[dict[str, Any], ...] = (
        {"url": "https://elsewhere.example/v1"},
        {"api_key_env": "OTHER_API_KEY"},
        {"concurrency": 1},
        {"timeout": 1},
        {"retries": 0},
        {"max_calls": 7},
        {"max_tokens_total": 7},
        {"rubric": str(same)},
    )
    for change in idle:
        assert source(**change) == source(), change
    other = tmp_path / "other.txt"
    other.write_text("Grade {completion}", encoding="utf-8")
    deciding: tuple[dict[str, Any], ...] = (
        {"model": "other"},
        {"temperature": 1},
        {"max_answer_tokens": 7},
        {"seed": 1},
        {"scale_max": 5},
        {"pattern": "([0-9])"},
        {"extra": {"top_p": 0.5}},
        {"rubric": str(other)},
    )
    for change in deciding:
        assert source(**change) != source(), change


def test_a_model_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match=r"^reward\.judge\.model: is empty; name the model at the endpoint"):
        judge_source(JudgeConfig(), "Grade {completion}")
