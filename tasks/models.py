"""Tasks that train the base and the reward model, or bring them in."""

from prefect import task

from alignment.config import AlignConfig
from alignment.stages.store import StageRef
from tasks.running import GPU_SLOT, RETRIES, Refs, run_stage


@task(name="base model", tags=[GPU_SLOT], **RETRIES)
def base_model(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """The policy's starting point and DPO's reference."""
    return run_stage("base", config, keys, refs)


@task(name="reward model", tags=[GPU_SLOT], **RETRIES)
def reward_model(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """The classifier whose logit labels the pairs."""
    return run_stage("reward", config, keys, refs)
