"""`explain` in a terminal of 80 columns and as JSON: from a version to its data, and down to one pair."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment.rows import ACCEPTED, PAIRS, PROMPTS, QUARANTINED, SCORES
from tasks.home import store
from tasks.registry import records
from tests.alignment.judging.test_story import ONE, TWO, a_pair, sample
from tests.registered import make_version

Call = Callable[..., Any]
PROMPT = {"prompt": "the film", "prompt_ids": [1, 2], "messages": "", "columns": "", "split": "train"}


@pytest.fixture
def at_home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module's home; none of these commands needs a server."""
    monkeypatch.setenv("PLUMBLINE_HOME", str(shared_home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return shared_home


@pytest.fixture(autouse=True)
def _registry(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This home's MLflow with a version of two pairs, one of which was set apart; a terminal of 80 columns."""
    from tasks.registry import connection, runs

    before = connection._place
    runs.configure(f"sqlite:///{at_home}/mlflow.db", at_home / "artifacts")
    monkeypatch.setenv("COLUMNS", "80")
    good, bad = a_pair(ONE, 0, 1, 3.0), a_pair(TWO, 0, 1, 0.1, chosen="the film \x07good")
    scored = [sample(prompt, index, 2.0 - index) for prompt in (ONE, TWO) for index in (0, 1)]
    tables: dict[str, tuple[dict[str, int], list[tuple[Any, list[Any]]]]] = {
        "prompts": ({"train": 2}, [(PROMPTS, [PROMPT | {"prompt_id": each} for each in (ONE, TWO)])]),
        "scores": ({"scored": 4}, [(SCORES, scored)]),
        "pairs": ({"built": 2, "ties": 0}, [(PAIRS, [good, bad])]),
        "validation": (
            {"pairs": 2, "accepted": 1, "quarantined": 1},
            [(ACCEPTED, [good]), (QUARANTINED, [bad | {"broken": ["score_gap"]}])],
        ),
    }
    refs = {}
    for stage, (counts, written) in tables.items():

        def fill(folder: Path, counts: Any = counts, written: Any = written) -> dict[str, int]:
            for table, rows in written:
                table.write(folder, rows)
            return dict(counts)

        refs[stage] = store().write(stage, "0123456789", fill)
    run = make_version("film").run_id
    records.log_json(run, "lineage.json", {name: ref.model_dump(mode="json") for name, ref in refs.items()})
    yield
    connection._place = before


def test_every_step_and_ids_to_begin_with(plumbline_alone: Call) -> None:
    done = plumbline_alone("explain", "film")
    assert done.code == 0
    lines = done.out.splitlines()
    names = [line.split()[0] for line in lines if line[:1].isalpha()]
    steps = ["version", "run", "gates", "validation", "pairs", "scores", "prompts", "settings", "code"]
    assert [name for name in names if name in steps] == steps
    assert "2 built\n" in done.out, "what is 0 is left out"
    assert f"plumbline explain film --sample {ONE}-0-1" in done.out
    assert max(len(line) for line in lines if "://" not in line and "sqlite" not in line) <= 80


def test_down_to_one_pair(plumbline_alone: Call) -> None:
    words = " ".join(plumbline_alone("explain", "film", "--sample", f"{ONE}-0-1").out.split())
    assert f"{ONE}-0 chosen score +2.000, 3 tokens, ended, log p −4.00 under the base model" in words
    assert f"{ONE}-1 rejected score +1.000" in words
    assert f"{ONE}-0-1 accepted" in words
    assert "best worst, gap 3.000" in words


def test_what_was_set_apart_has_its_reasons_and_no_control_signs(plumbline_alone: Call) -> None:
    done = plumbline_alone("explain", "film", "--quarantined")
    assert "1 of 1 pairs that validation set apart" in done.out
    assert f"{TWO}-0-1  score gap" in done.out
    assert "␇good" in done.out
    assert "\x07" not in done.out


def test_json_has_the_same(plumbline_alone: Call) -> None:
    found = json.loads(plumbline_alone("explain", "film", "--sample", TWO, "--json").out)
    assert found["story"]["pairs"][0]["broken"] == ["score_gap"]
    assert {step["name"] for step in found["steps"]} >= {"version", "gates", "pairs"}


def test_an_id_of_nothing_is_refused_in_a_line(plumbline_alone: Call) -> None:
    done = plumbline_alone("explain", "film", "--sample", "nothing")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no prompt, sample or pair of this run has such an id" in done.err
