"""The metrics of a training in MLflow, while it goes on and once it is finished."""

import time

from prefect import task

from alignment.errors import TrackingError
from alignment.rows import HISTORY
from alignment.stages.store import StageRef
from tasks.registry import records
from tasks.run_log import run_logger
from tasks.running import RETRIES

PAUSE_SECONDS = 60.0  # without MLflow after it failed: each attempt holds the training up


@task(name="complete the curve", **RETRIES)
def complete_curve(policy: StageRef, run_id: str) -> None:
    """Send whatever MLflow still lacks of the policy's curve."""
    records.complete_history(run_id, [records.in_training(row) for row in records.read_json(policy.path / HISTORY)])


class LiveCurve:
    """Sends rows to MLflow as they come. Rows that MLflow did not take wait for the next call; training goes on."""

    def __init__(self, run_id: str) -> None:
        """Nothing is sent yet."""
        self.run_id = run_id
        self.waiting: list[dict[str, float]] = []
        self.not_before = 0.0
        self._warned = False

    def __call__(self, row: dict[str, float]) -> None:
        """Send the row, and those that wait."""
        self.waiting.append(records.in_training(row))
        if time.monotonic() < self.not_before:
            return
        try:
            records.log_history(self.run_id, self.waiting)
            self.waiting.clear()
        except TrackingError as error:
            self.not_before = time.monotonic() + PAUSE_SECONDS
            if not self._warned:
                self._warned = True
                run_logger().warning("training goes on without its curve, which is sent later: %s", error)
