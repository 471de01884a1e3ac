"""Words as judges count them, and where a judged part begins."""

import pytest

from alignment.judging.judges.words import Passages, spans, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It isn't BAD, is it?", ["it", "isn't", "bad", ",", "is", "it", "?"]),
        ("fine.<br /><br />Then", ["fine", ".", "<br />", "<br />", "then"]),
        ("2 < 3 > 1", ["2", "<", "3", ">", "1"]),
        ("10/10 snake_case café", ["10", "/", "10", "snake_case", "café"]),
        ("猫が好き", ["猫", "が", "好", "き"]),
        (" \n ", []),
    ],
)
def test_a_word_is_a_run_of_letters_a_sign_or_a_tag(text: str, expected: list[str]) -> None:
    assert words(text) == expected
    assert [text[first:last].lower() for first, last in spans(text)] == expected


def test_a_word_that_goes_on_into_the_judged_part_is_judged() -> None:
    text = "the film was dull"
    starts = [0, len("the"), len("the film"), len("the film wa"), len(text)]
    passages = Passages([text] * len(starts), starts)
    assert [passages.words_before(number) for number in range(len(starts))] == [0, 1, 2, 2, 4]


def test_each_text_has_a_start() -> None:
    with pytest.raises(ValueError, match="2 starts for 1 texts"):
        Passages(["a"], [0, 0])
