"""Tasks that read texts and cut prompts from them."""

from prefect import task

from alignment.config import AlignConfig
from alignment.store import StageRef
from tasks.running import RETRIES, Refs, run_stage


@task(name="load texts", **RETRIES)
def load_texts(config: AlignConfig, keys: dict[str, str]) -> StageRef:
    """Labelled texts from the grammar, a file or the hub."""
    return run_stage("texts", config, keys, {})


@task(name="cut prompts", **RETRIES)
def cut_prompts(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """Prompts for training and for the evaluation, none on both sides."""
    return run_stage("prompts", config, keys, refs)
