"""Stage `after`: the aligned model's fresh samples on the same prompts, with the same random numbers."""

from alignment.stages import evaluating
from alignment.stages.job import Counts, Job
from alignment.stages.stage import MODELS, stage


@stage(
    title="sample after",
    needs=lambda c: ("policy", "base", "reward", "prompts", *evaluating.scaled(c)),
    reads=evaluating.reads,
    makes=evaluating.makes,
    slots=1,
    uses=evaluating.uses,
    libraries=(*MODELS, "numpy"),
)
def after(job: Job) -> Counts:
    """The policy's samples with rewards, its own and the base's log-probs, and judgements."""
    return evaluating.evaluate(job, "policy")
