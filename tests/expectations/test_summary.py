"""The figures of a set, against values worked out by hand."""

import math

import pytest

from expectations.summary import summarise


def figure(name, pairs):
    return summarise(pairs, quarantined=0, eval_prompt_ids=())[name]


def test_a_pair_that_repeats_an_earlier_one_is_a_duplicate(frame):
    same = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
    assert figure("duplicate_fraction", frame(4, {0: same, 1: same, 3: same})) == 0.5
    assert figure("duplicate_fraction", frame(4, {0: same, 1: same | {"rejected_ids": [4]}})) == 0.0


def test_ties_of_length_count_half(frame):
    pairs = frame(4, {0: {"chosen_tokens": 9}, 1: {"chosen_tokens": 9}, 2: {"rejected_tokens": 9}})
    assert figure("chosen_longer_fraction", pairs) == (1 + 1 + 0 + 0.5) / 4


def test_correlation_is_over_distinct_texts(frame):
    """Texts a, b, c of (score, tokens) (3, 4), (1, 2), (2, 6): deviations (1, 0), (-1, -2), (0, 2), so
    r = (0 + 2 + 0) / sqrt(2 * 8) = 0.5, though text a comes in both pairs.
    """
    first = {"chosen": "a", "chosen_score": 3.0, "chosen_tokens": 4}
    pairs = frame(
        2,
        {
            0: first | {"rejected": "b", "rejected_score": 1.0, "rejected_tokens": 2},
            1: first | {"rejected": "c", "rejected_score": 2.0, "rejected_tokens": 6},
        },
    )
    assert figure("length_correlation", pairs) == pytest.approx(0.5)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_undefined_figures_are_zero(frame, rows):
    """All lengths are equal here, so the correlation is undefined; with no rows, so is every fraction."""
    figures = summarise(frame(3).head(rows), quarantined=0, eval_prompt_ids=())
    assert figures["length_correlation"] == 0.0
    assert all(math.isfinite(figure) for figure in figures.values())


def test_prompts_are_told_apart_by_token_ids_and_shared_ones_counted_once(frame):
    pairs = frame(4, {1: {"prompt_ids": [1, 2, 0], "prompt_id": "prompt-0"}})
    figures = summarise(pairs, quarantined=1, eval_prompt_ids=["prompt-0", "prompt-3", "prompt-9"])
    assert figures["distinct_prompts"] == 3
    assert figures["shared_prompts"] == 2
    assert figures["quarantined_fraction"] == 1 / 5
