"""What two texts share, word by word: nothing of either is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.judging.differences import MAX_WORDS, differences


def test_words_that_differ_are_apart_from_those_that_do_not() -> None:
    found = differences("the film was dull to me", "the film was a joy to me")
    assert [piece for piece in found.before if not piece[1]] == [("dull", False)]
    assert [piece for piece in found.after if not piece[1]] == [("a joy", False)]
    assert found.changed == pytest.approx(1 - 2 * 5 / 13)


def test_equal_texts_differ_in_nothing_and_strange_ones_in_everything() -> None:
    assert differences("a b", "a b").changed == 0
    assert differences("a b", "c d").changed == 1
    assert differences("", "").changed == 0


@given(st.text(max_size=60), st.text(max_size=60))
def test_the_pieces_are_the_texts(one: str, two: str) -> None:
    found = differences(one, two)
    assert "".join(text for text, _ in found.before) == one
    assert "".join(text for text, _ in found.after) == two
    shared = [
        ["".join(text.split()) for text, same in side if same and text.strip()] for side in (found.before, found.after)
    ]
    assert "".join(shared[0]) == "".join(shared[1])


def test_very_long_texts_are_not_compared() -> None:
    found = differences("a " * MAX_WORDS, "b")
    assert found.changed is None
    assert found.after == (("b", True),)


def test_long_texts_that_repeat_a_few_words_are_not_compared_and_prose_of_their_length_is() -> None:
    """Comparing the first two would take seconds, and a page has hundreds of them."""
    repeated = [" ".join("the" if n % step else f"w{n % 7}" for n in range(740)) for step in (2, 3)]
    assert differences(*repeated).changed is None
    prose = [" ".join("the" if n % 20 == 0 else f"w{n % 400}" for n in range(start, start + 740)) for start in (0, 40)]
    found = differences(*prose).changed
    assert found is not None
    assert 0 < found < 0.2
