"""Stage `reward`: what the reward needs before it can score: a model that is trained here or copied, or nothing."""

from typing import Any

from alignment.config import AlignConfig
from alignment.kinds import REWARD_MODELS
from alignment.stages.job import Counts, Job
from alignment.stages.sources import model_source
from alignment.stages.stage import MODELS, stage


def has_model(config: AlignConfig) -> bool:
    """Whether the kind of reward scores by a model."""
    return config.reward.kind in REWARD_MODELS.names()


def trains(config: AlignConfig) -> bool:
    """Whether that model is trained here."""
    return has_model(config) and config.reward.model == "train"


def makes(config: AlignConfig) -> str:
    """What a plan says of it."""
    if not has_model(config):
        return f"nothing: {config.reward.kind} needs no model"
    return f"{config.reward.steps:,} steps" if trains(config) else config.reward.model


def reads(config: AlignConfig) -> Any:
    """What decides the model."""
    return model_source(config, "reward") if has_model(config) else {"kind": config.reward.kind}


@stage(
    title="reward model",
    needs=lambda c: ("texts",) if trains(c) else (),
    reads=reads,
    makes=makes,
    slots=lambda c: int(has_model(c)),
    trains=trains,
    uses=lambda c: [(REWARD_MODELS, c.reward.kind)] if has_model(c) else [],
    libraries=MODELS,
)
def reward(job: Job) -> Counts:
    """Whatever the model of the kind of reward is; an empty folder where it has none."""
    if not has_model(job.config):
        return {"needed": 0}
    counts: Counts = REWARD_MODELS.get(job.config.reward.kind)(job)
    return counts
