"""A run in sentences: counts, times, the stage at work, and the table of stages."""

from pathlib import Path

import pytest

from alignment.stages.store import StageRef
from tasks.progress import ALONE, Event, Points, Progress, StageProgress
from tasks.sentences import at_work, counted, finished, page, stages_table


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(clock: Clock, policy: float | None = 20.0, points: Points = ALONE) -> Progress:
    stages = [
        StageProgress("samples", "draw samples", expected=0.0),
        StageProgress("policy", "train policy", trains=True, expected=policy),
    ]
    return Progress(stages, points=points, clock=clock)


def ref(seconds: float = 14.3, **counts: int) -> StageRef:
    return StageRef(stage="samples", key="k", path=Path(), digest="d", counts=counts, seconds=seconds)


def test_counts_are_words_and_those_of_none_are_left_out() -> None:
    assert counted({"samples": 2048, "finished": 590, "unscored": 0}) == "2,048 samples, 590 finished"
    assert counted({"train": 512, "eval": 256, "not_needed": 8}) == "512 to train on, 256 held out, 8 not needed"
    trained = {"all_parameters": 96_704, "pairs": 23, "steps": 8, "trainable_parameters": 4_096}
    assert counted(trained) == "4,096 of 96,704 parameters trained, 23 pairs, 8 steps"


@pytest.mark.parametrize(("seconds", "told"), [(0, "5 s"), (12, "10 s"), (58, "1 min"), (118, "2 min")])
def test_a_time_to_come_is_told_no_finer_than_it_is_known(seconds: float, told: str) -> None:
    clock = Clock()
    progress = run(clock, policy=seconds)
    progress.note(Event("policy", "started"))
    assert at_work(progress).endswith(f"train policy, {told} left")


def test_the_stage_at_work_says_where_it_is_its_figures_its_pace_and_the_time_left() -> None:
    clock = Clock()
    progress = run(clock)
    progress.note(Event("policy", "progress", 1, 150))
    progress.row("policy", {"loss": 0.4123, "rewards/margin": 1.2, "entropy": 3.0})
    clock.now = 60
    progress.note(Event("policy", "progress", 121, 150))
    assert at_work(progress) == (
        "stage 2 of 2: train policy, step 121 of 150, loss 0.412, margin 1.2, 2.0 steps per second, 15 s left"
    )


def test_without_earlier_runs_the_time_left_is_of_the_stage_alone() -> None:
    clock = Clock()
    progress = run(clock)
    progress.stages["samples"].expected = None
    progress.note(Event("policy", "progress", 1, 150))
    clock.now = 60
    progress.note(Event("policy", "progress", 121, 150))
    assert at_work(progress).endswith("15 s left of this stage")


def test_who_waits_for_a_slot_says_so_first_and_who_holds_it() -> None:
    progress = run(Clock())
    progress.note(Event("policy", "waiting", who="'other' holds it since 17:05:00"))
    assert at_work(progress) == "waits for a GPU slot: 'other' holds it since 17:05:00; stage 2 of 2: train policy"


def test_behind_the_last_stage_the_result_is_recorded() -> None:
    progress = run(Clock())
    progress.note(Event("samples", "cached", ref=ref()))
    progress.note(Event("policy", "computed", ref=ref()))
    assert at_work(progress) == "all 2 stages are done; the result is recorded"


def test_of_a_sweep_the_point_is_told_with_its_stage() -> None:
    progress = run(Clock(), points=Points(1, 4))
    progress.note(Event("samples", "progress", 3, 150))
    assert at_work(progress).startswith("point 2 of 4, stage 1 of 2: draw samples, 3 of 150 prompts")
    progress.note(Event("samples", "cached", ref=ref()))
    progress.note(Event("policy", "computed", ref=ref()))
    assert at_work(progress) == "all 2 stages of point 2 of 4 are done; its result is recorded"


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (Event("samples", "computed", ref=ref(samples=2048)), "stage 1 of 2: draw samples: 2,048 samples, 14.3 s"),
        (
            Event("samples", "cached", ref=ref(samples=2048)),
            "stage 1 of 2: draw samples: 2,048 samples, found in the store",
        ),
        (Event("samples 0-8", "computed", ref=ref(samples=32)), "stage 1 of 2: draw samples, 0-8: 32 samples, 14.3 s"),
        (Event("samples", "computed", ref=ref(needed=0)), "stage 1 of 2: draw samples: nothing to do, 14.3 s"),
    ],
)
def test_a_finished_stage_is_one_line(event: Event, told: str) -> None:
    assert finished(run(Clock()), event) == told


def test_the_table_has_a_line_a_stage() -> None:
    progress = run(Clock())
    progress.note(Event("samples", "cached", ref=ref(samples=2048)))
    progress.note(Event("policy", "progress", 3, 150))
    lines = stages_table(progress).splitlines()
    assert lines[2:] == [
        "| 1 | draw samples | found in the store | 2,048 samples |   |",
        "| 2 | train policy | **at work** | step 3 of 150 |   |",
    ]


def test_the_page_says_what_the_run_is_about_and_how_its_stages_stand() -> None:
    about = {"Model": "small", "MLflow": "[curves](http://127.0.0.1:5000)"}
    assert page(about, None) == "- Model: small\n- MLflow: [curves](http://127.0.0.1:5000)"
    shown = page(about, run(Clock()), "point 2 of 8: ipo")
    assert "\n\n## point 2 of 8: ipo\n\n|  | Stage | State | Made | Time |\n" in shown
