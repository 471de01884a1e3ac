"""The tables of a result: every figure, the gates, texts of both models, a sweep; whole at 80 and at 200 columns."""

import io
import json
import logging
import re
from typing import Any

import pytest
from rich.console import Console

from alignment.config import GatesConfig
from alignment.judging.card import result_rows
from alignment.judging.gates import judge
from alignment.judging.grid import Point, point_rows
from alignment.judging.report import SampleRow
from flows.cli.progress import stage_lines
from flows.cli.terminal import MAX_TEXT, gates_table, result_table, show_points, show_samples
from tasks.progress import Event
from tasks.running import tell
from tests.flows.cli.screen import WIDTHS, require_words, screen
from tests.reports import DRIFT, make_report

CHAT = "system\nBe kind.\nuser\nWhy is the sky blue?\nassistant\n"


def row(**changes: Any) -> SampleRow:
    given = {"prompt": "the film", "base": "the film was bad", "aligned": "the film was fine"}
    return SampleRow(**(given | {"base_reward": 0.0, "aligned_reward": 1.0} | changes))


def chat(**changes: Any) -> SampleRow:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why is the sky blue?"}]
    given = {"prompt": CHAT, "base": f"{CHAT}It is.", "aligned": f"{CHAT}Air scatters\nblue.", "messages": messages}
    given |= changes
    return row(**(given | {"messages": json.dumps(given["messages"])}))


def samples(*rows: SampleRow, width: int = 80) -> str:
    return screen(lambda console: show_samples(rows, console), width)


def test_of_a_text_the_prompt_and_how_each_model_went_on() -> None:
    assert samples(row()).splitlines()[2:] == ["prompt   the film", "base     was bad", "aligned  was fine"]


def test_of_a_chat_its_last_turn_and_both_answers() -> None:
    assert samples(chat()).splitlines()[2:] == [
        "prompt   Why is the sky blue?",
        "base     It is.",
        "aligned  Air scatters blue.",
    ]


@WIDTHS
def test_three_prompts_are_shown_and_long_texts_are_cut(width: int) -> None:
    words = " ".join(f"word{number}" for number in range(200))
    found = samples(*[row(aligned=f"the film {words}")] * 5, width=width)
    assert found.count("…") == 3
    require_words(found, words[: MAX_TEXT - 12])


def test_a_text_without_blanks_is_folded() -> None:
    assert "".join(samples(row(aligned="the film" + "好" * 200)).split()).endswith("好" * 200)


def test_signs_that_would_steer_the_terminal_are_shown_as_signs() -> None:
    text = samples(row(base="the film \x1b[2J[red]was[/red]\x00"))
    assert "\x1b" not in text
    assert "[red]was[/red]␀" in text


@WIDTHS
def test_the_tables_of_figures_and_gates_fit_with_whole_words(width: int) -> None:
    report = make_report(drift=DRIFT, base_validation_perplexity=2.9, reward_validation_accuracy=0.9)
    judgement = judge(report, GatesConfig(max_kl_per_token=0.01))

    def show(console: Any) -> None:
        console.print(result_table(report))
        console.print(gates_table(judgement))

    text = screen(show, width)
    require_words(text, *(cell for row in result_rows(report) for cell in row))
    require_words(text, *(f"{gate.name} {gate.bound}" for gate in judgement.gates), "refused", "passed")


def points() -> list[Point]:
    """Three that were judged, of which two passed, and one that failed."""
    found = [Point("sigmoid", 0.1, 1e-3, "", None, None, "training diverged: loss nan at step 5; lower the rate")]
    for bound in (0.2, 0.01, 0.2):
        report = make_report(delta={"reward_gain": -0.25, "reward_gain_ci": (-11.4, -0.12)} if bound < 0.1 else {})
        judgement = judge(report, GatesConfig(max_kl_per_token=bound, max_perplexity_ratio=1 + bound))
        found.append(Point("sigmoid", 0.25, 0.0003, "r", report, judgement, judgement.sentence))
    return found


@WIDTHS
def test_a_sweep_has_one_line_a_point_and_names_the_gates_that_refused(width: int) -> None:
    rows = point_rows(points())
    text = screen(lambda console: show_points(rows, console), width)
    lines = [line.split() for line in text.splitlines()]
    assert lines[2][:4] == ["1", "sigmoid", "0.1", "0.001"]
    assert [" ".join(line) for line in lines[3:6]] == [
        "2 sigmoid 0.25 0.0003 +1.50 (+1.40 to +1.60) 0.930 0.050 1.08 passed",
        "3 sigmoid 0.25 0.0003 -0.25 (-11.40 to -0.12) 0.930 0.050 1.08 refused",
        "4 sigmoid 0.25 0.0003 +1.50 (+1.40 to +1.60) 0.930 0.050 1.08 passed",
    ]
    flat = " ".join(text.split())
    assert "Point 1 failed: training diverged: loss nan at step 5; lower the rate" in flat
    assert "Point 3 refused: reward_gain, perplexity_ratio, kl_per_token" in flat


def test_colours_show_on_white_and_on_black(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bold, dim, red, green and magenta: yellow and cyan fade on white, blue on black."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="standard", highlight=False)
    show_points(point_rows(points()), console)
    console.print(gates_table(judge(make_report(drift=DRIFT), GatesConfig(max_kl_per_token=0.01))))
    with stage_lines(console):
        tell(Event("base", "waiting", who="another run"))
        tell(Event("policy", "started"))
        tell(Event("policy", "progress", 5, 10, number=10, of=13))
        logging.getLogger("alignment.training").warning("a warning")
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    codes = {code for found in re.findall(r"\x1b\[([\d;]*)m", text) for code in found.split(";")}
    assert {"31", "32", "35"} <= codes <= {"0", "1", "2", "31", "32", "35"}
