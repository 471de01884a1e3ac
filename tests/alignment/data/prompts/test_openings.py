"""Prompts: the first tokens of texts, no repeats, none on both sides, and every text accounted for."""

from collections.abc import Collection, Sequence
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from alignment.config import PromptsConfig
from alignment.data.prompts.empty import empty
from alignment.data.prompts.ids import hash_ids, read_ids, split
from alignment.data.prompts.openings import Decode, Encode, openings
from alignment.data.prompts.select import BATCH, select
from alignment.data.prompts.source import Cut, Prompts, Rows
from alignment.errors import DataError


def spell(texts: Sequence[str]) -> list[list[int]]:
    """A tokenizer whose tokens are characters."""
    return [[ord(char) for char in text] for text in texts]


def join(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def first_tokens(
    texts: Sequence[str],
    encode: Encode,
    decode: Decode,
    config: PromptsConfig,
    seed: int,
    excluded: Collection[str] = (),
    *,
    begins: int = 0,
) -> Prompts:
    rows = Rows(lambda: [{"text": text, "label": -1, "columns": ""} for text in texts])
    way_out = f"ask for fewer tokens than prompts.tokens_min = {config.tokens_min}, widen the character bounds, "
    return select(rows, openings(encode, decode, config, seed, begins=begins), config, excluded, way_out=way_out)


def cut(texts: Sequence[str], seed: int = 0, **config: Any) -> Prompts | None:
    """The prompts, or None where a side has too few; two held out are enough."""
    try:
        return first_tokens(texts, spell, join, PromptsConfig(**{"min_eval": 2} | config), seed)
    except DataError:
        return None


def written(prompt: Cut) -> str:
    return join(prompt.ids)


NUMBERED = [f"{number:03d} and so on" for number in range(200)]
TEXTS = st.lists(st.text("abc", min_size=1, max_size=6), min_size=8, max_size=60)
CONFIGS = st.builds(
    lambda tokens, counts, fraction, chars: {
        "tokens_min": min(tokens),
        "tokens_max": max(tokens),
        "count": counts[0],
        "eval_count": counts[1],
        "eval_fraction": fraction,
        "min_chars": min(chars),
        "max_chars": max(chars),
    },
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 20), st.integers(2, 20)),
    st.sampled_from([0.4, 0.6]),
    st.tuples(st.integers(1, 2), st.integers(3, 6)),
)


@settings(deadline=None)
@given(texts=TEXTS, config=CONFIGS, seed=st.integers(0, 3))
def test_whatever_the_texts_the_prompts_keep_their_promises(texts, config, seed):
    found = cut(texts, seed, **config)
    if found is None:
        reject()
    every = [*found.train, *found.held_out]
    assert sum(found.counts.values()) == len(texts)
    assert (found.counts["train"], found.counts["eval"]) == (len(found.train), len(found.held_out))
    assert len({prompt.ids for prompt in every}) == len(every) == len({prompt.id for prompt in every})
    assert not {prompt.ids for prompt in found.train} & {prompt.ids for prompt in found.held_out}
    assert 1 <= len(found.train) <= config["count"]
    assert 1 <= len(found.held_out) <= config["eval_count"]
    for prompt in every:
        assert config["tokens_min"] <= len(prompt.ids) <= config["tokens_max"]
        assert any(
            text.startswith(written(prompt)) and config["min_chars"] <= len(text) <= config["max_chars"]
            for text in texts
        )


@settings(deadline=None)
@given(texts=TEXTS, fraction=st.sampled_from([0.4, 0.6]))
def test_a_prompt_stays_on_its_side_whatever_comes_with_it(texts, fraction):
    """The side belongs to the token ids: more texts, in another order, move nothing."""
    config = {"tokens_min": 3, "tokens_max": 3, "eval_fraction": fraction}
    few, many = cut(texts, **config), cut([*NUMBERED, *reversed(texts)], **config)
    if few is None:
        reject()
    assert many is not None
    assert set(few.train) <= set(many.train)
    assert set(few.held_out) <= set(many.held_out)


def test_a_prompt_is_the_first_tokens_of_its_text():
    found = cut(NUMBERED, tokens_min=3, tokens_max=3)
    assert found is not None
    assert sorted(map(written, [*found.train, *found.held_out])) == [text[:3] for text in NUMBERED]


def test_each_text_is_counted_once_with_what_became_of_it():
    """Four characters are one prompt; `abcd` comes again, `abc` has too few, and the last text is too long for 12."""
    texts = [*NUMBERED[:100], "abcd", "abcd again", "abc", "a text of more than twelve"]
    found = cut(texts, tokens_min=4, tokens_max=4, max_chars=13)
    assert found is not None
    assert found.counts["train"] + found.counts["eval"] == 101
    assert (found.counts["repeats"], found.counts["too_few_tokens"], found.counts["outside_char_bounds"]) == (1, 1, 1)


def test_a_text_that_is_exactly_as_long_as_its_prompt_gives_one():
    found = cut([text[:3] for text in NUMBERED], tokens_min=3, tokens_max=3)
    assert found is not None
    assert "too_few_tokens" not in found.counts


def test_what_comes_after_both_sides_are_full_is_not_needed_and_not_tokenised():
    encoded: list[int] = []

    def counting(texts: Sequence[str]) -> list[list[int]]:
        encoded.append(len(texts))
        return spell(texts)

    texts = [f"{number:05d}" for number in range(3 * BATCH)]
    config = PromptsConfig(tokens_min=5, tokens_max=5, count=4, eval_count=2)
    found = first_tokens(texts, counting, join, config, 0)
    assert encoded == [BATCH]
    assert found.counts == {"train": 4, "eval": 2, "not_needed": 3 * BATCH - 6}


def test_a_drawn_length_covers_its_range_and_belongs_to_the_text():
    config = {"tokens_min": 3, "tokens_max": 6}
    found, again, reordered, other = (
        cut(texts, seed, **config) for texts, seed in ((NUMBERED, 0), (NUMBERED, 0), (NUMBERED[::-1], 0), (NUMBERED, 1))
    )
    assert found is not None
    assert reordered is not None
    assert {len(prompt.ids) for prompt in found.train} == {3, 4, 5, 6}
    assert found == again != other
    assert set(found.train) == set(reordered.train)
    assert set(found.held_out) == set(reordered.held_out)


# The split


def test_the_id_of_a_prompt_is_the_hash_of_its_token_ids():
    """`printf ':1,2,3' | sha256sum | cut -c1-16`; the salt stands before the colon."""
    import hashlib

    assert hash_ids([1, 2, 3]) == hashlib.sha256(b":1,2,3").hexdigest()[:16]
    assert hash_ids([1, 23]) != hash_ids([12, 3])
    assert hash_ids([1], "salt") != hash_ids([1])


def test_the_split_is_pinned():
    """These ids were split like this once, and every stored run relies on it."""
    ids = [hash_ids([number]) for number in range(8)]
    assert [split(prompt_id, 0.25) for prompt_id in ids] == ["train"] * 4 + ["eval"] + ["train"] * 3


@given(st.text(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_fraction_takes_the_smaller_ones_eval_prompts_and_more(prompt_id, one, two):
    if split(prompt_id, min(one, two)) == "eval":
        assert split(prompt_id, max(one, two)) == "eval"


def test_the_fraction_is_that_of_all_prompts():
    """4,000 draws at 0.25: the standard deviation of the mean is 0.0068, and 0.03 are more than four of them."""
    sides = [split(hash_ids([number]), 0.25) for number in range(4_000)]
    assert sides.count("eval") / len(sides) == pytest.approx(0.25, abs=0.03)


# What earlier rounds used


def fresh(texts: Sequence[str], excluded: set[str], seed: int = 0, **config: Any) -> Prompts:
    return first_tokens(texts, spell, join, PromptsConfig(**{"min_eval": 2} | config), seed, excluded)


@settings(deadline=None)
@given(texts=TEXTS, config=CONFIGS, seed=st.integers(0, 3), data=st.data())
def test_what_is_excluded_is_counted_and_not_trained_on_and_the_held_out_side_stays(texts, config, seed, data):
    """The oracle: all that could be trained on, in order, without the excluded ones, up to the count."""
    free, all_of_them = cut(texts, seed, **config), cut(texts, seed, **config | {"count": 60})
    if free is None:
        reject()
    assert all_of_them is not None
    excluded = data.draw(st.sets(st.sampled_from([prompt.id for prompt in all_of_them.train])))
    found = fresh(texts, excluded, seed, **config)
    assert found.train == [prompt for prompt in all_of_them.train if prompt.id not in excluded][: config["count"]]
    assert found.held_out == free.held_out
    assert sum(found.counts.values()) == len(texts)
    assert found.counts["train"] == len(found.train)
    assert (found.counts.get("used_before", 0) > 0) == bool(excluded)


def test_rounds_use_each_prompt_once_and_the_last_of_them_none():
    config = {"tokens_min": 3, "tokens_max": 3, "count": 40}
    whole = fresh(NUMBERED, set(), **config | {"count": 200})
    used: list[str] = []
    while (found := fresh(NUMBERED, set(used), **config)).train:
        assert len(found.train) <= 40
        used += [prompt.id for prompt in found.train]
    assert used == [prompt.id for prompt in whole.train]
    assert found.held_out == whole.held_out
    assert found.counts == {"train": 0, "used_before": len(used), "eval": len(whole.held_out)}


def test_a_text_that_comes_again_is_a_repeat_whether_its_prompt_was_used_or_not():
    config = {"tokens_min": 3, "tokens_max": 3}
    first = fresh(NUMBERED, set(), **config).train[0]
    found = fresh([*NUMBERED, written(first) + " and other words"], {first.id}, **config)
    assert (found.counts["used_before"], found.counts["repeats"]) == (1, 1)


def test_a_prompt_that_was_trained_on_is_not_held_out_either_where_the_split_has_moved():
    config = {"tokens_min": 3, "tokens_max": 3, "count": 500, "eval_count": 500}
    trained_on = {prompt.id for prompt in fresh(NUMBERED, set(), eval_fraction=0.1, **config).train}
    moved = fresh(NUMBERED, trained_on, eval_fraction=0.9, min_eval=2, **config)
    assert trained_on & {prompt.id for prompt in [*moved.train, *moved.held_out]} == set()
    assert moved.counts["used_before"] == len(trained_on)


def test_a_list_that_excludes_nothing_here_does_not_excuse_an_empty_side():
    with pytest.raises(DataError, match="none left for the train side"):
        fresh(["abc"] * 3, {"0123456789abcdef"}, tokens_min=4, tokens_max=4)


def test_too_few_held_out_prompts_are_refused_whatever_was_used():
    everything = {prompt.id for prompt in fresh(NUMBERED, set(), tokens_min=3, tokens_max=3, count=200).train}
    with pytest.raises(DataError, match="left for the eval side"):
        fresh(NUMBERED[:20], everything, tokens_min=3, tokens_max=3, min_eval=16)


def test_the_empty_prompt_goes_on_with_ids_that_no_round_has_used():
    config = PromptsConfig(source="empty", count=3, eval_count=2)
    both = empty([7], PromptsConfig(source="empty", count=6, eval_count=2))
    first = empty([7], config)
    second = empty([7], config, {prompt.id for prompt in first.train})
    assert [*first.train, *second.train] == both.train
    assert second.held_out == first.held_out
    assert second.counts == {"train": 3, "eval": 2}


def test_a_list_of_used_prompts_is_read_line_by_line(tmp_path):
    (tmp_path / "used.txt").write_text("a1\nb2\n\n a1 \n")
    assert read_ids(str(tmp_path / "used.txt")) == {"a1", "b2"}


@pytest.mark.parametrize("content", [None, b"\x89PNG\xff"], ids=["missing", "not a text"])
def test_a_list_that_cannot_be_read_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "used.txt"
    if content:
        path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_ids(str(path))
    assert str(raised.value).startswith(f"prompts.exclude {path}: cannot be read (")
    assert str(raised.value).endswith("; give a text file of prompt ids, or leave it empty")
    assert "\n" not in str(raised.value)


# The empty prompt, and no prompt


def test_the_empty_prompt_is_bos_alone_under_ids_of_its_own():
    found = empty([7], PromptsConfig(source="empty", count=3, eval_count=2))
    assert [prompt.ids for prompt in [*found.train, *found.held_out]] == [(7,)] * 5
    assert len({prompt.id for prompt in [*found.train, *found.held_out]}) == 5
    assert [prompt.split for prompt in [*found.train, *found.held_out]] == ["train"] * 3 + ["eval"] * 2
    assert found.counts == {"train": 3, "eval": 2}


def test_texts_that_are_too_short_are_refused_with_the_count_and_the_way_out():
    with pytest.raises(DataError) as raised:
        first_tokens(["abc"] * 3, spell, join, PromptsConfig(tokens_min=4, tokens_max=4), 0)
    assert str(raised.value) == (
        "prompts: none left for the train side of 3 texts (3 too few tokens), which needs 1; ask for fewer tokens than "
        "prompts.tokens_min = 4, widen the character bounds, lower prompts.eval_fraction = 0.25, or give more texts"
    )


def test_too_few_held_out_prompts_are_refused_before_anything_is_made_of_the_others():
    with pytest.raises(DataError) as raised:
        first_tokens(NUMBERED[:20], spell, join, PromptsConfig(tokens_min=3, tokens_max=3), 0)
    held_out = sum(split(hash_ids(spell([text[:3]])[0]), 0.25) == "eval" for text in NUMBERED[:20])
    assert str(raised.value) == (
        f"prompts: {held_out} left for the eval side of 20 texts ({held_out} eval, {20 - held_out} train), which "
        "needs 16; ask for fewer tokens than prompts.tokens_min = 3, widen the character bounds, lower "
        "prompts.min_eval = 16, raise prompts.eval_fraction = 0.25, or give more texts"
    )


def test_no_more_are_held_out_than_were_asked_for():
    found = first_tokens(NUMBERED, spell, join, PromptsConfig(tokens_min=3, tokens_max=3, eval_count=2), 0)
    assert len(found.held_out) == 2 < PromptsConfig().min_eval


def test_a_prompt_that_ends_inside_a_character_is_dropped_and_counted():
    """Bytes for tokens: the third and fourth byte of these texts are the two of `é`; an honest U+FFFD is left alone."""

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def decode(ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")

    texts = [*NUMBERED, *(f"{number}é" for number in range(10, 20)), "\ufffd"]
    found = first_tokens(texts, encode, decode, PromptsConfig(tokens_min=3, tokens_max=3, min_eval=2), 0)
    assert found.counts["cut_inside_a_character"] == 10
    assert sum(found.counts.values()) == len(texts) == 10 + found.counts["train"] + found.counts["eval"]


def test_one_text_cannot_give_both_sides():
    with pytest.raises(DataError, match=r"none left for the (train|eval) side of 1 texts \(1 (train|eval)\)"):
        first_tokens(["abcdefgh"], spell, join, PromptsConfig(), 0)


def test_no_text_at_all_is_refused():
    with pytest.raises(DataError, match=r"none left for the train side of 0 texts \(no text at all\)"):
        first_tokens([], spell, join, PromptsConfig(), 0)
