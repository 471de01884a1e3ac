"""The simulated schedule: what can be worked out by hand comes out, and a loss costs what the theory says."""

import math

import pytest

from benchmarks.cluster import DAY, MOST_TRIES, PROMPTS, SAMPLES, Cluster, grid, row_bytes, shards_of, simulate


def test_one_worker_does_one_after_the_other() -> None:
    """Start 5, then each shard its own seconds, 1 for the worker and 0.5 for the run: 5 + 3 × 1.5 + (10 + 20 + 30)."""
    found = simulate([10, 20, 30], Cluster(1, start=5, overhead=1, hand_over=0.5))
    assert found.seconds == pytest.approx(69.5)
    assert found.efficiency == pytest.approx(60 / 69.5)
    assert (found.losses, found.lost, found.most_tries) == (0, 0, 1)


def test_the_next_shard_goes_to_the_first_worker_that_is_free() -> None:
    """10 and 4 begin; 4 ends, so 5 begins there and ends at 9; 1 begins then, and the last ends with 10."""
    assert simulate([10, 4, 5, 1], Cluster(2)).seconds == 10


def test_a_run_that_hands_over_slowly_is_what_many_workers_wait_for() -> None:
    """The hundredth shard is handed over after 100 × 2 s, however many workers there are."""
    assert simulate([1.0] * 100, Cluster(512, hand_over=2)).seconds == pytest.approx(201)


def test_a_loss_costs_what_the_theory_of_restarts_says() -> None:
    """With losses at rate r and a repair of R, a shard of T seconds takes (e^(rT) - 1)(1/r + R) on average.

    The restarts of one job without checkpoints; nothing is lost during a repair here.
    """
    rate, length, repair, count = 24 / DAY, 1_800.0, 120.0, 4_000
    found = simulate([length] * count, Cluster(1, losses_per_day=24, replace=repair))
    expected = (math.exp(rate * length) - 1) * (1 / rate + repair)
    assert found.seconds / count == pytest.approx(expected, rel=0.05)


def test_the_same_seed_gives_the_same_schedule_and_every_shard_is_finished() -> None:
    cluster = Cluster(7, losses_per_day=50, start=10, replace=60)
    first, again = (simulate([600.0] * 200, cluster, seed=3) for _ in range(2))
    assert first == again
    assert first.losses > 0
    assert simulate([600.0] * 200, cluster, seed=4) != first
    assert 0 < first.efficiency < 1


def test_more_workers_are_never_slower_and_losses_never_help() -> None:
    cells = {(cell.workers, cell.losses_per_day): cell.schedule for cell in grid((1, 8, 64), (1_000,))}
    rates = sorted({rate for _, rate in cells})
    for rate in rates:
        assert cells[1, rate].seconds > cells[8, rate].seconds > cells[64, rate].seconds
    for workers in (1, 8, 64):
        assert cells[workers, rates[0]].seconds <= cells[workers, rates[-1]].seconds
    assert max(schedule.most_tries for schedule in cells.values()) <= MOST_TRIES


def test_the_shards_are_the_whole_work() -> None:
    assert len(shards_of(1_000)) == 1_000
    assert sum(shards_of(250)) == pytest.approx(PROMPTS * SAMPLES * 512 / 10_000, rel=0.01)


def test_a_row_of_each_large_table_is_measured() -> None:
    found = row_bytes(64)
    assert found["samples"] > found["prompts"] > 100
