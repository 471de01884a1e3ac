"""Tasks that add the reference's log-probs to the pairs and train the policy on them."""

from prefect import task

from alignment.config import AlignConfig
from alignment.store import StageRef
from tasks import tracking
from tasks.running import GPU_SLOT, RETRIES, Refs, run_stage


@task(name="reference log-probs", tags=[GPU_SLOT], **RETRIES)
def reference_logprobs(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """What the reference thinks of both sides of each pair, computed once."""
    return run_stage("reference", config, keys, refs, options={"reference": refs["base"].digest})


@task(name="train policy", tags=[GPU_SLOT], **RETRIES)
def train_policy(config: AlignConfig, keys: dict[str, str], refs: Refs, run_id: str) -> StageRef:
    """DPO; its metrics reach MLflow while it trains, or at once where the result was in the store."""
    ref = run_stage(
        "policy", config, keys, refs, on_row=lambda row: tracking.log_history(run_id, [row])
    )
    if ref.cached:
        tracking.log_history(run_id, tracking.read_json(ref.path / "history.json"))
    return ref
