"""Tasks that read texts and cut prompts from them."""

import math

from prefect import task

from alignment.config import AlignConfig
from alignment.data.labels import Labels, require_two_classes
from alignment.data.pairs import pair
from alignment.errors import NothingNewError
from alignment.stages.store import StageRef
from tasks.running import RETRIES, Refs, run_stage


@task(name="load texts", **RETRIES)
def load_texts(config: AlignConfig, keys: dict[str, str]) -> StageRef:
    """Labelled texts from the grammar, a file or the hub, of two classes where a reward model is trained on them."""
    texts = run_stage("texts", config, keys, {})
    if config.reward.model == "train":
        labels = Labels.model_validate_json((texts.path / "labels.json").read_bytes())
        require_two_classes(labels, config.data)
    return texts


@task(name="cut prompts", **RETRIES)
def cut_prompts(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """Prompts for training and for the evaluation, none on both sides."""
    return run_stage("prompts", config, keys, refs)


def require_new(config: AlignConfig, prompts: StageRef) -> None:
    """Raise NothingNewError where earlier rounds have left fewer prompts than a set of pairs needs."""
    new, used, bounds = prompts.counts["train"], prompts.counts.get("used_before", 0), config.validation
    each = len(pair(range(config.sampling.samples_per_prompt), config.pairs.strategy, seed="").pairs)
    needed = max(bounds.min_distinct_prompts, math.ceil(bounds.min_pairs / each))
    if used and new < needed:
        raise NothingNewError(
            f"nothing new to learn from: {new} prompts that no earlier round has used ({used} were), and a round needs "
            f"{needed} (validation.min_distinct_prompts, validation.min_pairs); give new texts in data.path"
        )
