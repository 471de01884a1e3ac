"""Two runs compared by what MLflow holds: every sample, or the first ones of an older record; never other rewards."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from alignment.errors import InputError
from alignment.judging.evaluated import gather
from alignment.rows import SCALES
from alignment.stages.store import MANIFEST, StageRef
from tasks.comparing import compare, scored_by
from tasks.registry import connection, recorded, records, runs
from tests.registered import make_run, report


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of MLflow's for all tests: making it takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(autouse=True)
def _local(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That database, and a home of each test's own."""
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path))
    monkeypatch.setattr(connection, "_place", None)
    runs.configure(f"sqlite:///{database}/mlflow.db", database / "artifacts")


def a_run(name: str, rewards: list[float], *, reward: str = "r") -> str:
    """A judged run whose prompts have one sample each with these rewards."""
    run, _ = make_run(name, found=report())
    rows = [
        {
            "prompt_id": f"{number:016x}",
            "prompt": f"film {number}",
            "index": 0,
            "ids": [1, 2],
            "completion": " text",
            "finished": True,
            "reward": value,
            "logprob": -2.0,
            "base_logprob": -3.0,
        }
        for number, value in enumerate(rewards)
    ]
    table = pa.Table.from_pylist(rows)
    records.log_evaluated(run, gather(table, table, {}, reward=reward, base="b"))
    return run


def compared(one: str, two: str, **options: Any) -> Any:
    return compare(recorded.find(one), recorded.find(two), **options)


def test_every_sample_is_compared() -> None:
    found = compared(a_run("one", [0.0, 1.0, 2.0]), a_run("two", [1.0, 1.0, 4.0])).paired
    assert (found.prompts, found.figures[0].name, found.figures[0].change) == (3, "reward", 1.0)
    assert found.notes == ()


def test_rewards_of_another_model_or_function_are_refused() -> None:
    found = compared(a_run("one", [0.0, 1.0]), a_run("two", [9.0, 9.0], reward="another"))
    assert not found.paired.same_reward
    assert "reward" not in {each.name for each in found.paired.figures}
    assert found.warnings[0].startswith("They were scored by different rewards")


def test_an_older_record_is_compared_by_its_first_samples_and_says_so() -> None:
    older, _ = make_run("older", found=report())
    other, _ = make_run("other", found=report())
    for pair in ((older, other), (older, a_run("new", [1.0]))):
        found = compared(*pair).paired
        assert found.prompts == 5
        assert [note.partition(":")[0] for note in found.notes] == ["A", "B"]
        assert "keeps one sample of the first 5 of 256 held-out prompts" in found.notes[0]
        assert {each.name for each in found.figures} == {"reward", "win_rate"}


def test_a_run_is_not_compared_with_itself() -> None:
    run, _ = make_run("one")
    with pytest.raises(InputError, match="name two different runs"):
        compared(run, run[:8])


def test_the_page_has_what_the_comparison_has() -> None:
    page = compared(a_run("one", [0.0, 1.0]), a_run("two", [0.5, 3.0])).page
    assert "prompt by prompt" in page
    assert "+1.25" in page


def refs(root: Path, **inputs: Any) -> dict[str, StageRef]:
    """The stages `after` and `scores`, with what the manifest of the samples says of their reward."""
    made = {
        name: StageRef(stage=name, key="k", path=root / name, digest=name, counts={}, seconds=0.0)
        for name in ("after", "scores")
    }
    for ref in made.values():
        ref.path.mkdir(parents=True, exist_ok=True)
    known = {
        "parents": {"reward": "model"},
        "config": {"reward": {"kind": "function"}},
        "kinds": {"losses.x": {"code": "1", "package": "p"}},
    }
    (made["after"].path / MANIFEST).write_text(json.dumps({"inputs": known | inputs}))
    (made["scores"].path / SCALES).write_text(json.dumps({"style": 1.0}))
    return made


def test_what_scored_is_known_by_everything_that_decides_a_score(tmp_path: Path) -> None:
    """A function's stage is empty, so its code has to count; a package's code does, ours does not."""
    plain = refs(tmp_path / "plain")
    known = scored_by(plain["after"], plain)
    others: dict[str, dict[str, Any]] = {
        "another model": {"parents": {"reward": "other"}},
        "another function": {"config": {"reward": {"kind": "function", "code": "2"}}},
        "a package's": {"kinds": {"rewards.mine": {"code": "1", "package": "p"}}},
        "parts in SDs": {"parents": {"reward": "model", "scores": "x"}},
    }
    found = {}
    for name, inputs in others.items():
        made = refs(tmp_path / name, **inputs)
        found[name] = scored_by(made["after"], made)
    assert len({known, *found.values()}) == 5
    ours = refs(tmp_path / "ours", kinds={"rewards.classifier": {"code": "newer"}})
    assert scored_by(ours["after"], ours) == known
