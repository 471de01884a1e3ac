"""Tasks that draw samples, a shard each, and score them."""

from prefect import task

from alignment.config import AlignConfig
from alignment.stages.store import StageRef
from tasks.home import store
from tasks.running import GPU_SLOT, RETRIES, Refs, parts_folder, run_stage


def shards(config: AlignConfig, keys: dict[str, str], refs: Refs) -> list[tuple[int, int]]:
    """The ranges of train prompts, first to last (excluded), to sample together; none where all were and are merged."""
    if store().find("samples", keys["samples"]) is not None:
        return []
    prompts, size = refs["prompts"].counts["train"], config.sampling.shard_prompts
    return [(first, min(first + size, prompts)) for first in range(0, prompts, size)]


@task(name="sample shard", tags=[GPU_SLOT], task_run_name="sample shard {shard}", **RETRIES)
def sample_shard(shard: tuple[int, int], config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """Samples of one range of prompts; once finished it survives a crash of the others."""
    first, last = shard
    options = {"first": first, "last": last}
    fill = "alignment.stages.bodies:sample_shard"
    return run_stage("samples", config, keys, refs, part=f"{first}-{last}", fill=fill, options=options)


@task(name="merge samples", **RETRIES)
def merge_samples(parts: list[StageRef], config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """All shards as one stage; then they are deleted, as they would take the same space again."""
    options = {"shards": [str(part.path) for part in parts]}
    ref = run_stage("samples", config, keys, refs, options=options, gpu=False)
    store().discard(parts_folder("samples"), f"{keys['samples']}-")
    return ref


@task(name="score samples", tags=[GPU_SLOT], **RETRIES)
def score_samples(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """The reward of every sample."""
    return run_stage("scores", config, keys, refs)
