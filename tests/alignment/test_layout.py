"""Layouts by hand, and their indices against the sequences that they stand for."""

import random

import pytest
import torch

from alignment.layout import Layout, lay_flat, lay_in_buckets, lay_padded

PROMPTS, COMPLETIONS = [[5, 6], [7], [5, 6]], [[8, 9], [10], [11, 12, 13]]


def test_padded_by_hand() -> None:
    """EOS = padding = 0 is a target only where it was drawn."""
    found = lay_padded([[5, 6], [7]], [[0], [8, 0, 9]], pad_id=0)
    assert found.ids.tolist() == [[5, 6, 0, 0], [7, 8, 0, 9]]
    assert found.predicts.tolist() == [1, 4, 5, 6]
    assert found.targets.tolist() == [0, 8, 0, 9]
    assert found.rows.tolist() == [0, 1, 1, 1]
    assert found.lengths.tolist() == [1, 3]
    assert not found.is_flat


def test_flat_by_hand() -> None:
    """The prompt of the first and the third sequence is there once, and is in rows of both."""
    found = lay_flat(PROMPTS, COMPLETIONS)
    assert found.is_flat
    assert found.ids.tolist() == [[5, 6, 7, 8, 9, 10, 11, 12, 13]]
    assert found.positions.tolist() == [[0, 1, 0, 2, 3, 1, 2, 3, 4]]
    assert found.gather.tolist() == [[0, 1, 3, 4, 0], [2, 5, 0, 0, 0], [0, 1, 6, 7, 8]]
    assert found.first.tolist() == [0, 1, 5, 2, 3, 6, 12, 13, 14]
    assert (found.again.tolist(), found.again_of.tolist()) == ([10, 11], [0, 1])
    assert found.predicts.tolist() == [1, 3, 2, 1, 6, 7]
    assert found.targets.tolist() == [8, 9, 10, 11, 12, 13]
    assert found.rows.tolist() == [0, 0, 1, 2, 2, 2]
    assert found.lengths.tolist() == [2, 1, 3]


@pytest.mark.parametrize("seed", range(5))
def test_flat_indices_lead_back_to_the_sequences(seed: int) -> None:
    """Also where completions are empty, one prompt begins another, and all are the same."""
    draw = random.Random(seed)

    def ids(shortest: int) -> list[int]:
        return [draw.randrange(3) for _ in range(draw.randint(shortest, 4))]

    prompts, completions = [ids(1) for _ in range(7)], [ids(0) for _ in range(7)]
    found = lay_flat(prompts, completions)
    rows, tokens = found.ids[0][found.gather], found.ids[0]
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        assert rows[row, : len(prompt) + len(completion)].tolist() == [*prompt, *completion]
        assert found.targets[found.rows == row].tolist() == completion
        assert found.positions[0][found.gather[row, : len(prompt) + len(completion)]].tolist() == list(
            range(len(prompt) + len(completion))
        )
    assert torch.equal(rows.ravel()[found.first], tokens)
    assert torch.equal(rows.ravel()[found.again], tokens[found.again_of])
    inside = sum(map(len, prompts)) + sum(map(len, completions))
    assert sorted([*found.first.tolist(), *found.again.tolist()]) == sorted(
        {*found.first.tolist(), *found.again.tolist()}
    )
    assert len(found.first) + len(found.again) == inside
    padded = lay_padded(prompts, completions, pad_id=0)
    assert torch.equal(padded.targets, found.targets)
    assert torch.equal(padded.ids.ravel()[padded.predicts], tokens[found.predicts])


def test_rows_of_unlike_lengths_lie_in_two_buckets_that_tell_of_all() -> None:
    """5 rows of 101 tokens hold 404 of padding; 3 of 2 and 2 of 101 tokens hold none."""
    prompts, completions = [[5]] * 5, [[6], [7] * 100, [8], [9] * 100, [10]]
    short, long = lay_in_buckets(prompts, completions, pad_id=0)
    assert (short.ids.shape, long.ids.shape) == ((3, 2), (2, 101))
    assert short.rows.tolist() == [0, 2, 4]
    assert short.targets.tolist() == [6, 8, 10]
    assert set(long.rows.tolist()) == {1, 3}
    assert short.lengths.tolist() == [1, 0, 1, 0, 1]
    assert long.lengths.tolist() == [0, 100, 0, 100, 0]


@pytest.mark.parametrize("lengths", [[50, 51, 52, 50], [2, 3, 30], [9], [7] * 40])
def test_rows_of_like_lengths_or_few_tokens_share_one_layout(lengths: list[int]) -> None:
    prompts, completions = [[5]] * len(lengths), [[6] * length for length in lengths]
    (found,) = lay_in_buckets(prompts, completions, pad_id=0)
    expected = lay_padded(prompts, completions, pad_id=0)
    assert all(map(torch.equal, found.tensors().values(), expected.tensors().values()))


def test_tensors_come_back_by_name_among_others() -> None:
    layout = lay_flat(PROMPTS, COMPLETIONS)
    again = Layout.of(layout.tensors() | {"reference": torch.zeros(3)})
    assert all(
        torch.equal(one, two) for one, two in zip(again.tensors().values(), layout.tensors().values(), strict=True)
    )


def test_an_empty_prompt_is_refused_by_row() -> None:
    with pytest.raises(ValueError, match="sequence 1 has no prompt token"):
        lay_padded([[5], []], [[6], [7]], pad_id=0)
    with pytest.raises(ValueError, match="sequence 0 has no prompt token"):
        lay_flat([[]], [[6]])


def test_prompts_without_a_completion_each_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        lay_padded([[5], [6]], [[7]], pad_id=0)
