"""Where a run is: its stage of how many, and the time left by earlier runs and by the stage's own pace."""

from pathlib import Path

import pytest

from alignment.stages.store import StageRef
from tasks.following import following, progress_of_run
from tasks.progress import ALONE, Event, Points, Progress, StageProgress
from tasks.running import LISTENERS, tell


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ref(stage: str, seconds: float = 1.0) -> StageRef:
    return StageRef(stage=stage, key="k", path=Path(), digest="d", counts={"kept": 3}, seconds=seconds)


def three(clock: Clock, *expected: float | None, points: Points = ALONE) -> Progress:
    names = ("texts", "samples", "policy")
    return Progress(
        [StageProgress(name, name, name == "policy", each) for name, each in zip(names, expected, strict=True)],
        points=points,
        clock=clock,
    )


def test_an_event_learns_its_place_in_the_run(clock: Clock) -> None:
    event = three(clock, 1, 2, 3).note(Event("samples", "started"))
    assert (event.number, event.of, event.left) == (2, 3, 6)


def test_what_belongs_to_no_stage_stays_as_it_is(clock: Clock) -> None:
    event = Event("point 1 of 2", "heading")
    assert three(clock, 1, 2, 3).note(event) is event


def test_a_finished_stage_takes_no_more_time(clock: Clock) -> None:
    run = three(clock, 1, 2, 3)
    assert run.note(Event("texts", "cached", ref=ref("texts"))).left == 5
    assert run.stages["texts"].state == "found"
    assert run.note(Event("samples", "computed", ref=ref("samples", 9.0))).left == 3
    assert (run.stages["samples"].state, run.stages["samples"].seconds) == ("computed", 9.0)


def test_nothing_is_invented_where_one_stage_is_unknown(clock: Clock) -> None:
    run = three(clock, 1, None, 3)
    assert run.note(Event("texts", "started")).left is None
    run.note(Event("samples", "computed", ref=ref("samples")))
    assert run.left() == 4


def test_a_training_goes_by_its_own_pace_once_that_is_sure(clock: Clock) -> None:
    run = three(clock, 0, 0, 100)
    run.note(Event("policy", "started"))
    clock.now += 2
    assert run.note(Event("policy", "progress", 1, 50)).left == 98
    clock.now += 8
    event = run.note(Event("policy", "progress", 21, 50))
    assert event.left == 29 / 2.5
    assert run.rate() == 2.5


def test_what_a_checkpoint_had_done_before_is_no_pace(clock: Clock) -> None:
    run = three(clock, 0, 0, None)
    run.note(Event("policy", "started"))
    run.note(Event("policy", "progress", 101, 200))
    clock.now += 10
    assert run.note(Event("policy", "progress", 111, 200)).left == 89


def test_parts_of_a_stage_count_by_their_items(clock: Clock) -> None:
    run = three(clock, 0, None, 5)
    run.split("samples", [(0, 8), (8, 20)])
    run.note(Event("samples 0-8", "started"))
    clock.now += 4
    event = run.note(Event("samples 0-8", "computed", ref=ref("samples")))
    assert (event.number, event.of) == (2, 3)
    assert (run.stages["samples"].done, run.stages["samples"].total) == (8, 20)
    assert event.left == 5 + 12 / 2
    run.note(Event("samples 8-20", "progress", 1, 2))
    assert run.stages["samples"].done == 14


def test_a_row_of_metrics_comes_with_the_next_event(clock: Clock) -> None:
    run = three(clock, 0, 0, 1)
    run.row("policy", {"loss": 0.4})
    assert run.note(Event("policy", "progress", 1, 2)).row == {"loss": 0.4}


def test_waiting_for_a_slot_is_a_state_and_ends_with_the_work(clock: Clock) -> None:
    run = three(clock, 0, 0, 9)
    run.note(Event("policy", "started"))
    run.note(Event("policy", "waiting", who="another run"))
    assert (run.stages["policy"].state, run.stages["policy"].who) == ("queued", "another run")
    clock.now += 60
    run.note(Event("policy", "progress", 1, 100))
    assert (run.stages["policy"].state, run.left()) == ("running", 9)


def test_the_fraction_is_of_time_where_it_is_known_else_of_stages(clock: Clock) -> None:
    run = three(clock, 0, 0, 10)
    clock.now += 10
    assert run.fraction() == 0.5
    unknown = three(clock, None, None, None)
    unknown.note(Event("texts", "computed", ref=ref("texts")))
    assert unknown.fraction() == pytest.approx(1 / 3)


def test_a_stage_that_takes_longer_than_expected_goes_by_its_pace_and_without_one_is_unknown(clock: Clock) -> None:
    run = three(clock, 0, 10, 5)
    run.note(Event("samples", "started"))
    assert run.note(Event("samples", "progress", 0, 100)).left == 10 + 5
    clock.now += 100
    event = run.note(Event("samples", "progress", 10, 100))
    assert (event.rate, event.left) == (0.1, 900 + 5)
    silent = three(clock, 0, 10, 5)
    silent.note(Event("samples", "started"))
    clock.now += 15
    assert silent.left() is None
    assert silent.left_of_stage() is None
    assert silent.fraction() == 15 / (15 + 5)


def test_a_sweep_is_as_far_as_all_its_points(clock: Clock) -> None:
    """The first of four takes 60 s, and each further one 20 s."""
    first = three(clock, None, None, None, points=Points(0, 4))
    clock.now += 60
    for name, done in (("texts", 1 / 12), ("samples", 2 / 12), ("policy", 3 / 12)):
        first.note(Event(name, "computed", ref=ref(name)))
        assert first.fraction() == pytest.approx(done)
    told = []
    for done in (1, 2, 3):
        point = three(clock, 0, 0, 20, points=Points(done, 4, spent=60 + 20 * (done - 1)))
        told.append((point.left(), point.fraction()))
        clock.now += 20
        point.note(Event("policy", "computed", ref=ref("policy")))
        told += [(point.left(), point.fraction())] if done < 3 else []
        for name in ("texts", "samples"):
            point.note(Event(name, "cached", ref=ref(name)))
    assert told == [(60, 60 / 120), (40, 80 / 120), (40, 80 / 120), (20, 100 / 120), (20, 100 / 120)]
    assert (point.left(), point.fraction()) == (0, 1)


def test_what_further_points_take_is_not_known_at_the_first(clock: Clock) -> None:
    first = three(clock, 10, 20, 30, points=Points(0, 4))
    clock.now += 20
    assert first.left() is None
    assert first.fraction() == pytest.approx(20 / 80 / 4)


def test_listeners_hear_where_the_run_is_while_it_is_followed(clock: Clock) -> None:
    heard: list[Event] = []
    LISTENERS.append(heard.append)
    try:
        with following(three(clock, 1, 2, 3)) as run:
            assert progress_of_run() is run
            tell(Event("texts", "started"))
        tell(Event("texts", "started"))
    finally:
        LISTENERS.remove(heard.append)
    assert [(event.number, event.of) for event in heard] == [(1, 3), (0, 0)]
    assert run.stages["texts"].state == "stopped"
    assert progress_of_run() is None
