"""Means and errors over prompts, and the rewards of the reference's samples as a matrix: by hand."""

import math

import numpy as np
import pytest

from alignment.judging.trajectory import over_prompts, reward_matrix


def test_a_mean_over_prompts_and_its_error() -> None:
    """Prompt a has a mean of 2, b of 5, c of 5: 4 on average, with an SD of sqrt(3) over three prompts."""
    mean, error = over_prompts(np.array([1.0, 5.0, 3.0, 5.0]), ["a", "b", "a", "c"])
    assert mean == pytest.approx(4.0)
    assert error == pytest.approx(1.0)


@pytest.mark.parametrize("ids", [[], ["a"], ["a", "a"]], ids=str)
def test_of_one_prompt_nobody_knows_the_error(ids: list[str]) -> None:
    mean, error = over_prompts(np.ones(len(ids)), ids)
    assert math.isnan(error)
    assert math.isnan(mean) == (not ids)


def test_the_rewards_of_each_prompt_are_a_row() -> None:
    found, left_out = reward_matrix(["b", "a", "b", "a"], np.array([1.0, 2.0, 3.0, 4.0]))
    assert found.tolist() == [[2.0, 4.0], [1.0, 3.0]]
    assert left_out == 0


def test_a_sample_without_a_score_costs_each_prompt_one_and_not_its_own_prompt_all() -> None:
    """Prompt b has a score for two of its three samples, and c for one, fewer than half."""
    nan = math.nan
    found, left_out = reward_matrix(list("aaabbbccc"), np.array([1.0, 2.0, 3.0, nan, 5.0, 6.0, nan, 8.0, nan]))
    assert found.tolist() == [[1.0, 2.0], [5.0, 6.0]]
    assert left_out == 1


@pytest.mark.parametrize("prompts", [[], ["a", "a", "b"]], ids=str)
def test_without_any_score_there_are_no_rewards(prompts: list[str]) -> None:
    found, left_out = reward_matrix(prompts, np.full(len(prompts), math.nan))
    assert found.size == 0
    assert left_out == len(set(prompts))
