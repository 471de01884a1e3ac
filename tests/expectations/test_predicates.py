"""The masks of texts and ids, over Arrow's columns and over Python's objects, against plain Python row by row."""

import sys
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from expectations import arrays, predicates
from tests.expectations import oracles

SPACES = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
NASTY = [*SPACES, "\x00", "\x07", "\x7f", "\x80", "\x9f", "\xa1", "ÿ", "\ufffd", "\ufffc", "￡", "e\u0301", "\u200b"]
NASTY += ["\ufeff", "😀", "👩\u200d🚀", "日本", "a", "Ab", "long " * 60]

TEXTS = st.lists(st.sampled_from(NASTY), max_size=4).map("".join)


@st.composite
def pairs(draw: Any) -> tuple[str | None, str | None, str | None]:
    """A prompt and two texts, most of which begin with it; it may be longer than they are, and each may be missing."""
    prompt = draw(TEXTS)
    texts = [draw(st.sampled_from([prompt + draw(TEXTS), draw(TEXTS), prompt[:-1], None])) for _ in range(2)]
    return draw(st.sampled_from([prompt, prompt, prompt, None])), *texts


@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.lists(pairs(), min_size=1, max_size=12), st.integers(0, 3))
def test_masks_of_texts_are_those_of_plain_python(rows: list[tuple[Any, ...]], skipped: int) -> None:
    table = pa.table({name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate("pcr")})
    objects = pd.DataFrame(rows, columns=list("pcr"), dtype=object)
    frames = [arrays.frame(table), objects, objects.astype("str")]
    for frame in [*frames, arrays.frame(table.slice(skipped)), frames[0].set_axis(range(5, 5 + len(rows)))]:
        values = rows[len(rows) - len(frame) :]
        for name in ("starts_with_first", "not_blank_after_first", "without_control", "whole_unicode"):
            expected = [None not in row and bool(getattr(oracles, name)(*row)) for row in values]
            found = getattr(predicates, name)(frame)
            assert found.tolist() == expected, name
            assert found.index.equals(frame.index)
        lengths = arrays.chars(frame["c"])
        assert lengths.dropna().tolist() == [len(row[1]) for row in values if row[1] is not None]


IDS = st.none() | st.lists(st.integers(0, 2), max_size=3)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), IDS, IDS), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_pairs_differ_where_neither_texts_nor_ids_are_equal(rows: list[tuple[Any, ...]]) -> None:
    kinds = (pa.string(), pa.string(), pa.list_(pa.int32()), pa.list_(pa.int64()))
    table = pa.table(
        [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)], list("abcd")
    )
    expected = [None not in row and row[0] != row[1] and row[2] != row[3] for row in rows]
    for frame in (arrays.frame(table), pd.DataFrame(rows, dtype=object), arrays.frame(table.slice(1))):
        assert predicates.differ(frame).tolist() == expected[len(rows) - len(frame) :]


def test_what_is_no_text_fails_and_lone_surrogates_are_one_broken_character() -> None:
    rows = pd.DataFrame({"p": ["", "a", "a"], "c": ["x", "a\ud83d", 3], "r": ["x", "ab", "ab"]}, dtype=object)
    assert predicates.starts_with_first(rows).tolist() == [True, True, False]
    assert predicates.whole_unicode(rows).tolist() == [True, False, False]
    assert arrays.chars(rows["c"]).tolist()[:2] == [1, 2]


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA1)])
def test_control_characters_are_told_at_the_end_of_a_text_and_at_its_start(code: int) -> None:
    frame = pd.DataFrame({"c": [f"a{chr(code)}", "b", "", f"{chr(code)}é"]})
    fine = oracles.without_control(chr(code))
    assert predicates.without_control(frame).tolist() == [fine, True, True, fine]
