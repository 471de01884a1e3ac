"""Tasks that add the reference's log-probs to the pairs and train the policy on them."""

import time

from prefect import task

from alignment.config import AlignConfig
from alignment.errors import TrackingError
from alignment.stages.store import StageRef
from tasks.registry import runs
from tasks.running import GPU_SLOT, RETRIES, Refs, run_logger, run_stage

PAUSE_SECONDS = 60.0  # without MLflow after it failed: each attempt holds the training up


@task(name="reference log-probs", tags=[GPU_SLOT], **RETRIES)
def reference_logprobs(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """What the reference thinks of both sides of each pair, computed once."""
    scored = config.sampling.precision != "fp32"  # else the samples carry them already
    return run_stage("reference", config, keys, refs, options={"reference": refs["base"].digest}, gpu=scored)


@task(name="train policy", tags=[GPU_SLOT], **RETRIES)
def train_policy(config: AlignConfig, keys: dict[str, str], refs: Refs, run_id: str) -> StageRef:
    """DPO; its metrics reach MLflow while it trains, and whatever the run still lacks of the curve afterwards."""
    ref = run_stage("policy", config, keys, refs, on_row=LiveCurve(run_id))
    runs.complete_history(run_id, runs.read_json(ref.path / "history.json"))
    return ref


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
        self.waiting.append(row)
        if time.monotonic() < self.not_before:
            return
        try:
            runs.log_history(self.run_id, self.waiting)
            self.waiting.clear()
        except TrackingError as error:
            self.not_before = time.monotonic() + PAUSE_SECONDS
            if not self._warned:
                self._warned = True
                run_logger().warning("training goes on without its curve, which is sent later: %s", error)
