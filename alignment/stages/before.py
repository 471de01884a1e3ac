"""Stage `before`: the base model's fresh samples on the held-out prompts."""

from alignment.stages import evaluating
from alignment.stages.job import Counts, Job
from alignment.stages.stage import MODELS, stage


@stage(
    title="sample before",
    needs=lambda c: ("base", "reward", "prompts", *evaluating.scaled(c)),
    reads=evaluating.reads,
    makes=evaluating.makes,
    slots=1,
    uses=evaluating.uses,
    libraries=(*MODELS, "numpy"),
)
def before(job: Job) -> Counts:
    """The base's samples with rewards, log-probs and judgements."""
    return evaluating.evaluate(job, "base")
