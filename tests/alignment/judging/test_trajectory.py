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


def test_the_rewards_of_each_prompt_are_a_row_and_a_prompt_with_a_gap_is_left_out() -> None:
    found = reward_matrix(["a", "b", "c", "a", "b", "c"], np.array([1.0, 2.0, 3.0, 4.0, np.nan, 6.0]))
    assert found.tolist() == [[1.0, 4.0], [3.0, 6.0]]


def test_prompts_with_unlike_numbers_of_samples_are_no_matrix() -> None:
    with pytest.raises(ValueError, match="prompts have 1 to 2 samples"):
        reward_matrix(["a", "a", "b"], np.ones(3))
