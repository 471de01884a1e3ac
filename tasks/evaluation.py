"""The report of an evaluation, and the verdict of the gates on it."""

import json
from pathlib import Path

from prefect import task

from alignment.config import AlignConfig
from alignment.judging import records
from alignment.judging.report import EvalReport, Judgement, SampleRow
from alignment.kinds import GATES
from alignment.rows import REPORT, SAMPLE_TEXTS
from alignment.stages.store import StageRef


@task(name="apply gates")
def apply_gates(config: AlignConfig, report: StageRef) -> Judgement:
    """The verdict; gates cost nothing, so they are applied anew in every run."""
    from alignment.judging.gates import judge

    return judge(read_report(report), config.gates)


def require_gates() -> None:
    """Raise ConfigError where a gate of another package cannot be imported: before any work, not after it."""
    for name in GATES.names():
        if GATES.origin(name).package:
            GATES.get(name)


def read_report(report: StageRef) -> EvalReport:
    """The report of a finished stage."""
    return records.read_report((report.path / REPORT).read_text(encoding="utf-8"))


def read_samples(report: Path) -> list[SampleRow]:
    """The sample texts beside the report in the stage's folder, of the first held-out prompts."""
    rows = json.loads((report / SAMPLE_TEXTS).read_text(encoding="utf-8"))
    return [SampleRow.model_validate(row) for row in rows]
