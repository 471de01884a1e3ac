"""Stage `reward`: what the reward needs before it can score: models that are trained here or copied, or nothing."""

from typing import Any

from alignment.config import AlignConfig
from alignment.kinds import REWARD_MODELS
from alignment.rewards.parts import described, is_trained, takes_model
from alignment.stages.job import Counts, Job
from alignment.stages.set_aside import part, with_own_texts
from alignment.stages.sources import reward_model_kinds, reward_model_source
from alignment.stages.stage import MODELS, stage


def trains(config: AlignConfig) -> bool:
    """Whether a model that scores is trained here."""
    return any(is_trained(each) for each in described(config))


def needs(config: AlignConfig) -> tuple[str, ...]:
    """What a training learns from."""
    return ("texts",) if trains(config) else ()


def makes(config: AlignConfig) -> str:
    """What a plan says of it."""
    if trains(config):
        return f"{config.reward.steps:,} steps"
    models = [each.model for each in described(config) if takes_model(each)]
    return ", ".join(models) or f"nothing: {config.reward.kind} needs no model"


def reads(config: AlignConfig) -> Any:
    """What decides it; where texts are set aside, how many."""
    source, fraction = reward_model_source(config), part(config)
    return {"model": source, "set_aside": fraction} if fraction else source


@stage(
    title="reward model",
    needs=needs,
    reads=reads,
    makes=makes,
    slots=lambda c: int(any(is_trained(each) for each in described(c))),
    processes=lambda c: c.dpo.processes if trains(c) else 1,
    trains=trains,
    uses=lambda c: reward_model_kinds(c.reward, *c.reward.parts),
    libraries=MODELS,
)
def reward(job: Job) -> Counts:
    """Whatever the kind of reward scores by; an empty folder where it needs nothing."""
    if job.config.reward.kind not in REWARD_MODELS.names():
        return {"needed": 0}
    counts: Counts = REWARD_MODELS.get(job.config.reward.kind)(with_own_texts(job, second=False))
    return counts
