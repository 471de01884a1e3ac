"""Pairs: each strategy by hand, ties that give none, and a chosen sample that is strictly the better one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.data.pairs.strategies import pair
from alignment.kinds import STRATEGIES

SCORES = [0.2, 0.9, 0.5, 0.1]  # best first: 1, 2, 0, 3
NAMES = st.sampled_from(sorted(STRATEGIES.names()))
SOME_SCORES = st.lists(st.integers(-2, 2).map(float), min_size=2, max_size=8)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("best_vs_worst", [(1, 3)]),
        ("best_vs_rest", [(1, 2), (1, 0), (1, 3)]),
        ("all_pairs", [(1, 2), (1, 0), (1, 3), (2, 0), (2, 3), (0, 3)]),
        ("best_half_vs_worst_half", [(1, 3), (2, 0)]),
    ],
)
def test_a_strategy_pairs_the_samples_like_this(name, pairs):
    found = pair(SCORES, name, seed="any")
    assert (found.pairs, found.ties) == (pairs, 0)


def test_best_vs_random_takes_one_of_the_others_by_its_seed():
    found = {seed: pair(SCORES, "best_vs_random", seed=str(seed)).pairs for seed in range(50)}
    assert {pairs[0] for pairs in found.values()} == {(1, 0), (1, 2), (1, 3)}
    assert found == {seed: pair(SCORES, "best_vs_random", seed=str(seed)).pairs for seed in range(50)}


def test_gap_weighted_draws_a_pair_as_often_as_its_gap_is_wide():
    """Of 0, 1 and 3 the gaps are 1, 2 and 3: one sixth, a third and a half of 6,000 draws; 120 are 3 SDs."""
    scores = [1.0, 0.0, 3.0]
    found = Counter(pair(scores, "gap_weighted", seed=str(seed)).pairs[0] for seed in range(6000))
    assert found.keys() == {(0, 1), (2, 0), (2, 1)}
    assert [found[each] for each in ((0, 1), (2, 0), (2, 1))] == pytest.approx([1000, 2000, 3000], abs=120)


def test_gap_weighted_draws_the_second_pair_from_what_the_first_left():
    """Of 0, 1, 3 and 7 the gaps are 1, 2, 3, 4, 6 and 7 of 23; P(7 then 6) is 7/23 · 6/16 of 6,000 draws."""
    scores = [0.0, 1.0, 3.0, 7.0]
    drawn = [tuple(pair(scores, "gap_weighted", seed=str(seed)).pairs) for seed in range(6000)]
    assert drawn == [tuple(pair(scores, "gap_weighted", seed=str(seed)).pairs) for seed in range(6000)]
    assert Counter(drawn)[((3, 0), (3, 1))] == pytest.approx(6000 * 7 / 23 * 6 / 16, abs=75)


@pytest.mark.parametrize(
    ("name", "scores", "pairs", "ties"),
    [
        ("best_vs_worst", [1.0, 1.0], [], 1),
        ("best_vs_worst", [1.0, 1.0, 0.0], [(0, 2)], 0),
        ("best_vs_rest", [1.0, 1.0, 0.0], [(0, 2)], 1),
        ("all_pairs", [1.0, 1.0, 0.0], [(0, 2), (1, 2)], 1),
        ("all_pairs", [0.0, 0.0, 0.0], [], 3),
        ("best_vs_random", [1.0, 1.0], [], 1),
        ("best_half_vs_worst_half", [1.0, 0.0, 0.5, 0.5], [(0, 1)], 1),
        ("gap_weighted", [1.0, 1.0, 1.0, 1.0], [], 2),
        ("gap_weighted", [1.0, 1.0, 0.0], [(0, 2)], 0),
    ],
)
def test_ties_give_no_pair_and_are_counted(name, scores, pairs, ties):
    found = pair(scores, name, seed="any")
    assert (found.pairs, found.ties) == (pairs, ties)


@given(scores=SOME_SCORES, name=NAMES, seed=st.text(max_size=3))
def test_chosen_is_strictly_better_and_every_candidate_is_a_pair_or_a_tie(scores, name, seed):
    found = pair(scores, name, seed=seed)
    count = len(scores)
    candidates = {
        "best_vs_rest": count - 1,
        "all_pairs": count * (count - 1) // 2,
        "best_half_vs_worst_half": count // 2,
        "gap_weighted": count // 2,
    }.get(name, 1)
    assert all(scores[chosen] > scores[rejected] for chosen, rejected in found.pairs)
    assert len(found.pairs) + found.ties == candidates
    assert len(set(found.pairs)) == len(found.pairs)


@given(scores=SOME_SCORES)
def test_all_pairs_finds_each_pair_of_different_scores_once(scores):
    count = len(scores)
    expected = {(i, j) for i in range(count) for j in range(count) if scores[i] > scores[j]}
    assert set(pair(scores, "all_pairs", seed="any").pairs) == expected


@given(scores=SOME_SCORES, name=NAMES.filter(lambda name: name.startswith("best_vs")))
def test_the_best_sample_is_the_one_that_is_chosen(scores, name):
    assert all(scores[chosen] == max(scores) for chosen, _ in pair(scores, name, seed="any").pairs)


@pytest.mark.parametrize("name", sorted(STRATEGIES.names()))
@pytest.mark.parametrize("scores", [[], [1.0]])
def test_one_sample_makes_no_pair(name, scores):
    with pytest.raises(ValueError, match=rf"a prompt has {len(scores)} scored sample\(s\): a pair needs two"):
        pair(scores, name, seed="any")
