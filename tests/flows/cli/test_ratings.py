"""What people said of a run's samples in MLflow, in the terminal, as JSON and as pairs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import plumbline as library
from alignment.judging.review import Comparison
from tests.registered import make_run
from tests.tasks.registry.test_review import assess

Call = Callable[..., Any]
ROWS = [
    Comparison(f"p{n}", f"film {n}", "", f" bad {n}", f" good {n}", {"reward_gain": gain, "gold_x_gain": -1.0})
    for n, gain in enumerate((1.0, -1.0, 0.5))
]


@pytest.fixture(autouse=True)
def _registry(at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This home's MLflow, and afterwards the one from before."""
    from tasks.registry import connection, runs

    before = connection._place
    runs.configure(f"sqlite:///{at_home}/mlflow.db", at_home / "artifacts")
    monkeypatch.chdir(tmp_path)
    yield
    connection._place = before


def test_ratings_are_told_and_written_as_pairs(plumbline: Call, tmp_path: Path) -> None:
    from tasks.registry import review

    run_id = make_run("rated")[0]
    review.offer(run_id, ROWS)
    empty = plumbline("ratings", run_id)
    assert (empty.code, "None of 3 samples is rated yet" in empty.out) == (0, True)
    assert "review-queue" in empty.out.replace("\n", "")
    refused = plumbline("ratings", run_id, "--pairs", "none.jsonl")
    assert (refused.code, "no pair to write" in refused.err) == (2, True)

    for row in ROWS[:2]:
        assess(run_id, row, row.letter_of_aligned(run_id))
    done = plumbline("ratings", run_id[:8], "--pairs", tmp_path / "rated.jsonl")
    assert done.code == 0
    for told in ("2 of 3 prompts rated by 1 person: ann", "Win rate: 1.00", "2 prefer the aligned model, 0 the base"):
        assert told in done.out
    assert [line.split()[:3] for line in done.out.splitlines() if line.startswith(("reward", "gold_x"))] == [
        ["gold_x", "0.00", "2"],
        ["reward", "0.50", "2"],
    ]
    rows = [json.loads(line) for line in (tmp_path / "rated.jsonl").read_text("utf-8").splitlines()]
    assert rows[0] == {"prompt": "film 0", "chosen": " good 0", "rejected": " bad 0", "margin": 1.0}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    as_json = json.loads(plumbline("ratings", run_id, "--json").out)
    assert (as_json["rated"], as_json["win_rate"]) == (2, 1.0)
    found = library.ratings(run_id, tmp_path / "rated.parquet")
    assert found.agreement["reward"].rate == 0.5
    import pyarrow.parquet as parquet

    assert parquet.read_table(tmp_path / "rated.parquet").to_pylist() == rows


def test_a_run_whose_samples_nobody_can_rate_is_refused(plumbline: Call) -> None:
    run_id = make_run("unrated")[0]
    for arguments, told in (
        ((run_id,), "registry.review_rows above 0"),
        ((run_id, "--pairs", "pairs.csv"), "written as .jsonl or .parquet"),
    ):
        done = plumbline("ratings", *arguments)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert told in done.err
