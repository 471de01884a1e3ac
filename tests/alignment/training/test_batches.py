"""The rows of a step are the same however many processes and batches they are dealt to."""

from itertools import chain

import pytest

from alignment.training.batches import ROWS, Collated, Shares, accumulation, rows_of


def steps(rows: int, step: int, size: int, processes: int, epoch: int = 0) -> list[list[list[int]]]:
    """The rows of each step of an epoch, one list for each batch of each process, in their order."""
    found = []
    for rank in range(processes):
        shares = Shares(rows, step=step, size=size, seed=7, rank=rank, processes=processes)
        shares.set_epoch(epoch)
        batches = list(shares)
        assert len(batches) == len(shares)
        found.append(batches)
    assert len({len(batches) for batches in found}) == 1, "no process waits for another"
    of_step, one_by_one = accumulation(step, size, processes), list(zip(*found, strict=True))
    return [
        [batch for batches in one_by_one[start : start + of_step] for batch in batches]
        for start in range(0, len(one_by_one), of_step)
    ]


@pytest.mark.parametrize(("rows", "step"), [(10, 4), (12, 4), (3, 4), (7, 6), (9, 8)])
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_step_has_the_same_rows_and_no_batch_too_many(rows: int, step: int, size: int, processes: int) -> None:
    alone = [list(chain(*batches)) for batches in steps(rows, step, step, 1)]
    dealt = steps(rows, step, size, processes)
    assert [list(chain(*batches)) for batches in dealt] == alone
    assert sorted(chain(*alone)) == list(range(rows))
    assert max(len(batch) for batches in dealt for batch in batches) <= size


@pytest.mark.parametrize(("rows", "step"), [(10, 4), (12, 4), (3, 4), (7, 1)])
def test_the_rows_of_so_many_steps_are_counted(rows: int, step: int) -> None:
    lengths = [len(batch) for epoch in range(3) for (batch,) in steps(rows, step, step, 1, epoch)]
    for done in range(len(lengths) + 1):
        assert rows_of(done, rows=rows, step=step) == sum(lengths[:done])


def test_each_epoch_has_an_order_of_its_own() -> None:
    assert steps(20, 4, 4, 1, epoch=0) != steps(20, 4, 4, 1, epoch=1)


def test_a_batch_of_no_rows_stands_in_with_any_row_and_says_so() -> None:
    collated = Collated(lambda rows: {"sum": sum(rows)}, [5, 6])
    assert collated([6, 5]) == {"sum": 11, ROWS: 2}
    assert collated([]) == {"sum": 5, ROWS: 0}
