"""What a run shows in a terminal: texts of both models side by side, readable at 80 columns."""

import io
import json
from typing import Any

from rich.console import Console

from alignment.judging.report import SampleRow
from flows.cli.terminal import MAX_TEXT, samples_table

CHAT = "system\nBe kind.\nuser\nWhy is the sky blue?\nassistant\n"


def row(**changes: Any) -> SampleRow:
    given = {"prompt": "the film", "base": "the film was bad", "aligned": "the film was fine"}
    return SampleRow(**(given | {"base_reward": 0.0, "aligned_reward": 1.0} | changes))


def chat(**changes: Any) -> SampleRow:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why is the sky blue?"}]
    given = {"prompt": CHAT, "base": f"{CHAT}It is.", "aligned": f"{CHAT}Air scatters\nblue.", "messages": messages}
    given |= changes
    return row(**(given | {"messages": json.dumps(given["messages"])}))


def shown(*rows: SampleRow, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(samples_table(rows))
    return console.export_text()


def cells(*rows: SampleRow) -> list[list[str]]:
    """The cells of the table's lines between its frame."""
    lines = [line for line in shown(*rows, width=200).splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_of_a_text_the_prompt_and_how_each_model_went_on() -> None:
    assert cells(row()) == [["the film", "was bad", "was fine"]]


def test_of_a_chat_its_last_turn_and_both_answers() -> None:
    assert cells(chat()) == [["Why is the sky blue?", "It is.", "Air scatters blue."]]


def test_three_prompts_are_shown_and_long_texts_are_cut() -> None:
    long = row(aligned="the film " + "was fine " * 100)
    found = shown(*[long] * 5)
    assert found.count("…") == 3
    assert max(map(len, found.splitlines())) <= 80
    assert sum(len(line[2].rstrip("…")) + 1 for line in cells(long)) >= MAX_TEXT - 2


def test_signs_that_would_steer_the_terminal_are_shown_as_signs() -> None:
    text = shown(row(base="the film \x1b[2J[red]was[/red]\x00"))
    assert "\x1b" not in text
    assert "[red]was[/red]␀" in text
