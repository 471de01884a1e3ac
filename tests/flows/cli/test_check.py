"""`plumbline check`: every planted fault is named with its row, without weights, and the exit code says what became."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.data.preferences import FAULTS
from tests.alignment.preference_rows import row_of, with_chatml, write
from tests.flows.cli.outcome import Outcome

SOUND = 120
ASKED = [{"role": "user", "content": "Was it fine?"}]
CONTEXT = 256


def says(content: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": content}]


def sides(chosen: Any, rejected: Any) -> dict[str, Any]:
    return {"chosen": ASKED + says(chosen), "rejected": ASKED + says(rejected)}


def sound(number: int) -> dict[str, Any]:
    """Neither side of all pairs is the longer one."""
    row = row_of(number, "conversational implicit")
    other = [*row["rejected"][:1], *says("Oh yes" + " it was" * (number % 9))]
    return {"chosen": row["chosen"], "rejected": other}


PLANTED: list[tuple[str, dict[str, Any]]] = [
    ("chosen_is_rejected", sides("Yes, it was", "Yes, it was")),
    ("prompts_differ", {"chosen": ASKED + says("Yes"), "rejected": [{"role": "user", "content": "Why?"}, *says("No")]}),
    ("empty_chat", {"chosen": [], "rejected": ASKED + says("No, not")}),
    ("roles_out_of_order", {"chosen": [*ASKED, *ASKED, *says("Yes")], "rejected": [*ASKED, *ASKED, *says("No")]}),
    ("messages_in_a_text", {"chosen": json.dumps(ASKED + says("Yes")), "rejected": ASKED + says("No")}),
    ("null", {"chosen": ASKED + says("Yes, it was"), "rejected": None}),
    ("not_blank", sides("Yes, it was", "     ")),
    ("no_control_characters", sides("Yes, a bell \x07", "No, not at all")),
    ("whole_unicode", sides("Yes, cut \ufffd", "No, not at all")),
    ("too_long", sides("Yes" * CONTEXT, "No, not at all")),
    ("repeats an earlier pair", sound(3)),
    ("score_gap", sound(SOUND) | {"score_chosen": 1.0, "score_rejected": 3.0}),
]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    from flows.cli import check
    from flows.cli.commands import main

    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("flows.cli.console.WIDTH", 80)

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            main(["check", *map(str, arguments)])
        captured = capsys.readouterr()
        broken = [line for line in captured.out.splitlines() if str(tmp_path) not in line]  # a path stays whole
        assert max(map(len, broken), default=0) <= 80
        return Outcome(int(stopped.value.code or 0), captured.out, captured.err)

    assert check.ALONE
    return run


@pytest.fixture
def model(tiny_gpt2: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """Config and tokenizer alone: the weights are never looked for, but for a file that says that they are there."""
    tokenizer = with_chatml(tiny_tokenizer)
    folder = tmp_path / "model"
    tiny_gpt2(vocab_size=len(tokenizer), width=8, context=CONTEXT).config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").write_text("no weights")
    return folder


def row_named(out: str, name: str) -> list[str]:
    """Count and first rows of a reason."""
    found = re.search(rf"^{re.escape(name)} +(\d+)  ([\d, …]+)", out, re.MULTILINE)
    assert found is not None, f"{name} is not named in\n{out}"
    return [found[1], *found[2].split(", ")]


def test_twelve_planted_faults_are_all_named_with_their_rows(
    call: Callable[..., Outcome], model: Path, tmp_path: Path
) -> None:
    data = write(tmp_path / "pairs.jsonl", [*map(sound, range(SOUND)), *(row for _, row in PLANTED)])
    found = call(data, "--base.model", model)
    assert len(PLANTED) == 12
    for number, (name, _) in enumerate(PLANTED, SOUND + 1):
        assert row_named(found.out, name)[:1] == ["1"], name
        assert row_named(found.out, name)[1].strip() == str(number), name
    assert found.code == 0, found.out  # they are set apart, and what is left can be trained on
    assert "132 rows; 126 conversational, implicit prompt" in " ".join(found.out.split())
    assert "Lengths are in tokens of" in found.out
    assert "Fine: a run would train on these rows." in found.out
    assert "plumbline:" not in found.err


def test_what_a_run_would_refuse_is_refused_with_exit_3(call: Callable[..., Outcome], tmp_path: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [row_of(number, "standard explicit") for number in range(30)])
    found = call(data)
    assert found.code == 3
    told = " ".join(found.out.split())
    assert "Refused: pairs: accepted pairs" in told
    assert "must be at least validation.min_pairs = 64" in told
    assert "Lengths are in words: pass --base.model" in told
    assert "Not applied: finite_scores (no scores), score_gap (no gap), length_correlation (no scores)" in told


@pytest.mark.parametrize("fault", ["chosen", "null"])
def test_a_set_without_a_single_pair_says_why(call: Callable[..., Outcome], tmp_path: Path, fault: str) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "b" if fault == "chosen" else None}
    found = call(write(tmp_path / "pairs.jsonl", [row] * 40))
    assert found.code == 3
    assert ("chosen_is_rejected" if fault == "chosen" else "null") in found.out
    assert "no row is a pair to train on" in found.out


def test_what_cannot_be_read_is_one_line_with_exit_2(call: Callable[..., Outcome], tmp_path: Path, model: Path) -> None:
    data = write(tmp_path / "pairs.jsonl", [{"prompt": "a", "completion": "b"}])
    missing = call(data)
    assert (missing.code, missing.err.count("\n")) == (2, 1)
    assert "has no column `chosen` (it has `prompt`, `completion`)" in missing.err
    assert call(tmp_path / "none.jsonl").code == 2
    (model / "config.json").write_text("{")
    broken = call(write(tmp_path / "two.jsonl", [row_of(0, "standard explicit")]), "--base.model", model)
    assert (broken.code, broken.err.count("\n")) == (2, 1)
    assert "base.model" in broken.err


def test_prompts_that_are_no_pairs_are_looked_at_by_their_source(call: Callable[..., Outcome], tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"Was film {number} fine?"}]} for number in range(200)]
    data = write(tmp_path / "chats.jsonl", [*rows, {"messages": []}])
    found = call(data, "--prompts.source", "messages", "--data.text-column", "messages")
    assert found.code == 0
    assert "201 rows; 201 prompts, messages" in " ".join(found.out.split())
    assert "1 empty chat" in " ".join(found.out.split())


def test_a_runs_own_configuration_decides(call: Callable[..., Outcome], tmp_path: Path, model: Path) -> None:
    """Its bounds, and how long a prompt may be."""
    settings = {
        "data": {"path": str(write(tmp_path / "pairs.jsonl", map(sound, range(SOUND))))},
        "base": {"model": str(model)},
        "reward": {"kind": "none"},
        "prompts": {"source": "pairs", "count": 1_000},
        "pairs": {"source": "given"},
        "validation": {"min_pairs": 10_000},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    found = call("--config", path)
    assert found.code == 3
    assert "validation.min_pairs = 10000" in " ".join(found.out.split())


def test_data_has_to_be_named(call: Callable[..., Outcome]) -> None:
    found = call()
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "set data.path to a file of yours" in found.err


def test_every_fault_fits_the_table() -> None:
    assert max(map(len, FAULTS)) <= 22


def test_from_python_the_result_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignment.config import build_config
    from flows.cli.check import ALONE
    from flows.library import check

    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "home"))
    data = write(tmp_path / "pairs.jsonl", [*map(sound, range(SOUND)), PLANTED[0][1]])
    found = check(build_config(ALONE, overrides={"data": {"path": str(data)}}))
    assert found.fine
    assert sum(found.counts.values()) == found.rows == SOUND + 1
    assert [(each.name, each.where) for each in found.apart] == [("chosen_is_rejected", (str(SOUND + 1),))]
    assert [length.name for length in found.lengths] == ["prompt", "chosen", "rejected"]
