"""What a sweep and a frontier share: a policy that cannot be trained or measured ends its own point, and no other."""

from alignment.config import AlignConfig
from alignment.errors import ModelError, ScoreError, SelfCheckError, TrainingError
from alignment.stages.plan import Pipeline
from alignment.stages.stage import Refs

FAULTS = (TrainingError, SelfCheckError, ScoreError, ModelError)
"""What may be wrong with one policy and right with the next; a budget that is spent is spent for all of them."""


def is_own(pipeline: Pipeline, config: AlignConfig, refs: Refs, trains: str) -> bool:
    """Whether the stage behind those that are finished is the one that `trains` the policy, or needs that one.

    All stages before it are the same for every point, and so is what goes wrong in them.
    """
    own = {trains}
    for stage in pipeline.wanted(config):
        if not own.isdisjoint(stage.needs(config)):
            own.add(stage.name)
    return next((stage.name in own for stage in pipeline.wanted(config) if stage.name not in refs), True)
