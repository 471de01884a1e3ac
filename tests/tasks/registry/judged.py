"""A judged run: its configuration, report and judgement, and what it holds in MLflow."""

from pathlib import Path
from typing import Any

from alignment.config import AlignConfig
from alignment.judging.report import GateResult, Judgement, SampleRow
from tasks.registry import connection
from tests.reports import make_report

CONFIG = AlignConfig()
REPORT = make_report(delta={"kl_per_token": 0.31})
JUDGEMENT = Judgement(
    verdict="fail",
    sentence="Refused: KL per token 0.31 exceeds 0.2.",
    gates=(
        GateResult(name="win_rate", value=0.93, low=0.55, high=None, passed=True, why="x"),
        GateResult(name="kl_per_token", value=0.31, low=None, high=0.2, passed=False, why="y"),
    ),
)
SAMPLE = SampleRow(prompt="the film", base=" was bad", base_reward=-1.0, aligned=" was good", aligned_reward=1.2)


def run_of(run_id: str) -> Any:
    return connection.client().get_run(run_id)


def artifact(run_id: str, name: str) -> Path:
    return Path(connection.client().download_artifacts(run_id, name))
