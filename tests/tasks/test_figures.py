"""The figures of a run are drawn once for what they show, and anew where that differs."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.config import AlignConfig
from alignment.judging import plots
from alignment.judging.gates import judge
from alignment.rows import ACCEPTED, EVALUATED, HISTORY
from alignment.stages.store import StageRef
from tasks.figures import SHOWN, drawn
from tasks.home import store
from tests.reports import make_report

CONFIG = AlignConfig()


def finished(root: Path, *, scored: bool = True, **digests: str) -> dict[str, StageRef]:
    """Stages with two rows each; where nothing is scored, there is no reward and no gap."""
    refs = {}
    for name in SHOWN:
        (folder := root / name).mkdir(exist_ok=True)
        values = pa.array([0.5, None] if scored else [None, None], pa.float64())
        for table, column in ((EVALUATED, "reward"), (ACCEPTED, "gap")):
            pq.write_table(pa.table({column: values}), folder / table.file)
        (folder / HISTORY).write_text(json.dumps([{"step": step, "loss": 1 / step} for step in (1, 2)]))
        digest = digests.get(name, name)
        refs[name] = StageRef(stage=name, key=name, path=folder, digest=digest, counts={}, seconds=0.0)
    return refs


def names(refs: dict[str, StageRef], config: AlignConfig = CONFIG, **delta: Any) -> list[str]:
    report = make_report(delta=delta)
    return [path.stem for path in drawn(config, refs, report, judge(report, config.gates))]


@pytest.fixture
def strokes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that a run is drawn."""
    found: list[str] = []
    draw = plots.gates_chart

    def counted(judgement: Any) -> Any:
        found.append(judgement.verdict)
        return draw(judgement)

    monkeypatch.setattr(plots, "gates_chart", counted)
    return found


def test_what_was_drawn_is_taken_from_the_store(tmp_path: Path, strokes: list[str]) -> None:
    first = drawn(CONFIG, finished(tmp_path), make_report(), judge(make_report(), CONFIG.gates))
    assert [path.read_bytes()[:4] for path in first] == [b"\x89PNG"] * 4
    assert names(finished(tmp_path)) == ["gaps", "gates", "rewards", "training"]
    assert len(strokes) == 1
    assert first[0].is_relative_to(store().root)


def test_other_content_another_verdict_or_another_bound_is_drawn_anew(tmp_path: Path, strokes: list[str]) -> None:
    narrower = CONFIG.model_copy(update={"validation": CONFIG.validation.model_copy(update={"min_gap": 0.4})})
    names(finished(tmp_path))
    names(finished(tmp_path, policy="another"))
    names(finished(tmp_path), perplexity_ratio=3.0)
    names(finished(tmp_path), narrower)
    assert strokes == ["pass", "pass", "fail", "pass"]


def test_what_was_not_scored_is_not_drawn(tmp_path: Path) -> None:
    assert names(finished(tmp_path, scored=False)) == ["gates", "training"]
