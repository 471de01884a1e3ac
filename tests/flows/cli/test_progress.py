"""How far a run is, in a terminal and in a file: one line a stage, and one for the stage at work."""

import io
import logging
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from alignment.stages.store import StageRef
from flows.cli.progress import EVERY, STAGE, AtWork, StageLines, stage_lines, status
from tasks import running
from tasks.pipeline import STAGES
from tasks.progress import Event
from tasks.running import tell
from tests.flows.cli.screen import WIDTHS, require_words, screen

COUNTS = {"eval": 256, "not_needed": 8390, "repeats": 842, "train": 512, "read": 0}
COMPUTED = StageRef(stage="prompts", key="k", path=Path("p"), digest="d", counts=COUNTS, seconds=1.25)
WARNING = "step 75: nearly every pair is ranked right, and further steps move the policy away from the reference"
TRAINS = Event(
    "policy",
    "progress",
    120,
    280,
    number=10,
    of=13,
    left=100.0,
    row={"step": 120, "loss": 0.31234, "rewards/margin": 2},
    rate=12.5,
)


def line(event: Event, width: int, *, bar: bool = True) -> str:
    """The line of a stage that began 10 s ago."""
    found = Text.from_markup(status(AtWork(event, began=0.0), 10.0, width, bar=bar))
    assert found.cell_len <= width
    return found.plain


def test_the_line_of_a_training_says_which_stage_how_far_the_loss_the_rate_and_the_time_left() -> None:
    assert line(TRAINS, 120) == (
        "stage 10 of 13  policy  █████████████░░░░░░░░░░░░░░░░░  step 120/280  loss 0.312  12/s  2 min left of the run"
    )


@pytest.mark.parametrize("width", range(24, 121, 4))
def test_where_the_line_is_short_the_least_telling_goes_first(width: int) -> None:
    found = line(TRAINS, width)
    assert "policy" in found
    assert "120/280" in found
    parts = ("stage 10 of 13", "loss 0.312", "12/s", "2 min left", "of the run")
    there = [part in found for part in parts]
    for less, more in (
        ("of the run", "2 min left"),
        ("12/s", "loss 0.312"),
        ("loss 0.312", "stage 10 of 13"),
        ("stage 10 of 13", "2 min left"),
    ):
        assert there[parts.index(more)] or not there[parts.index(less)]


def test_a_stage_of_which_nothing_is_known_says_how_long_it_is_at_work() -> None:
    assert line(Event("prompts", "started"), 80) == "prompts  10 s"
    assert line(Event("samples", "progress", 1200, 2048, number=5, of=14, rate=147.5), 80, bar=False) == (
        "stage 5 of 14  samples  1,200/2,048  148/s"
    )


@WIDTHS
def test_a_finished_stage_is_a_line_and_a_warning_stands_below_it(width: int) -> None:
    def show(console: Console) -> None:
        with stage_lines(console):
            tell(Event("point 1 of 8: hinge, beta 0.3, lr 0.0001", "heading"))
            tell(Event("prompts", "started"))
            tell(Event("prompts", "computed", ref=COMPUTED, number=4, of=13))
            tell(Event("policy", "waiting", who="quickstart, since 14:02"))
            logging.getLogger("alignment.training").warning(WARNING)

    text = screen(show, width)
    require_words(
        text, WARNING, "256 held out, 8,390 not needed, 842 repeats, 512 to train on", "point 1 of 8: hinge, beta 0.3,"
    )
    assert re.search(r"^ 4/13   1\.2s  prompts  +256 held out", text, re.MULTILINE)
    assert "0 read" not in text
    assert "(quickstart, since 14:02)" in " ".join(text.split())
    assert not running.LISTENERS


def cached(*stages: str, first: int = 1) -> None:
    for number, stage in enumerate(stages, first):
        tell(Event(stage, "cached", ref=COMPUTED, number=number, of=5))


def test_what_a_point_of_a_sweep_finds_in_the_store_is_one_line() -> None:
    def show(console: Console) -> None:
        with stage_lines(console):
            tell(Event("point 2 of 3: hinge", "heading"))
            cached("texts", "base", "pairs")
            tell(Event("policy", "started", number=4, of=5))
            tell(Event("policy", "computed", ref=COMPUTED, number=4, of=5))
            cached("after", first=5)
            tell(Event("point 3 of 3: ipo", "heading"))
            cached("texts", "base")

    lines = screen(show, 120).splitlines()
    assert [number for number, line in enumerate(lines) if not line] == [4], "one before the second heading alone"
    assert [line.partition(" 256")[0].rstrip() for line in lines if line] == [
        "point 2 of 3: hinge",
        "  1-3/5 cached  texts, base, pairs",
        "  4/5   1.2s  policy",
        "  5/5 cached  after",
        "point 3 of 3: ipo",
        "  1-2/5 cached  texts, base",
    ]


def test_the_counts_of_all_stages_stand_below_one_another() -> None:
    assert max(map(len, STAGES)) == STAGE
    lines = screen(lambda console: _shown(console, *STAGES), 120).splitlines()
    assert len(lines) == len(STAGES)
    assert len({line.index(" 256 held out") for line in lines}) == 1


def _shown(console: Console, *stages: str) -> None:
    with stage_lines(console):
        cached(*stages)


def test_a_run_by_itself_has_a_line_for_each_stage() -> None:
    def show(console: Console) -> None:
        with stage_lines(console):
            cached("texts", "base")

    lines = screen(show, 120).splitlines()
    assert [line.partition(" 256")[0].rstrip() for line in lines] == ["  1/5 cached  texts", "  2/5 cached  base"]


def test_in_few_columns_the_counts_stand_below_the_stage_in_whole_words() -> None:
    console = Console(width=20, file=io.StringIO())
    lines = StageLines(console)
    lines.hear(Event("prompts", "computed", ref=COMPUTED, number=4, of=13))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines() == [
        " 4/13   1.2s",
        "prompts",
        "  256 held out,",
        "  8,390 not needed,",
        "  842 repeats, 512",
        "  to train on",
    ]


def test_without_a_terminal_a_stage_at_work_has_a_line_every_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr("flows.cli.progress.time.monotonic", lambda: clock)
    console = Console(width=80, file=io.StringIO())
    lines = StageLines(console)
    lines.hear(Event("policy", "started"))
    for second in range(1, 91):
        clock = float(second)
        lines.hear(Event("policy", "progress", second, 300, number=10, of=13, left=210.0, rate=1.0))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert EVERY == 30.0
    assert [found.strip() for found in text.splitlines()] == [
        f"stage 10 of 13  policy  {second}/300  1.0/s  4 min left of the run" for second in (30, 60, 90)
    ]


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_terminal_has_one_line_that_is_written_over_unless_it_cannot(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    with stage_lines(console):
        tell(Event("policy", "started", number=10, of=13))
        tell(Event("policy", "progress", 5, 10, number=10, of=13))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("\r" in text) == (term != "dumb")
    assert text.endswith("\x1b[2K") or term == "dumb", "it is gone at the end"
