"""Stage `drift`: what the anchor writes itself, and what it makes of both models' samples."""

from functools import partial

from alignment.config.policy import for_any_model
from alignment.rows import ANCHORED, EVALUATED, MODEL
from alignment.stages import evaluating
from alignment.stages.drawing import count_finished
from alignment.stages.job import Counts, Job
from alignment.stages.kept import forget_model
from alignment.stages.likelihood import logprobs
from alignment.stages.scoring import rewards_of
from alignment.stages.sources import engine_kinds, reward_kinds
from alignment.stages.stage import MODELS, stage


@stage(
    title="measure drift",
    needs=lambda c: ("anchor", "base", "reward", "prompts", "before", "after", *evaluating.scaled(c)),
    reads=evaluating.reads,
    makes=evaluating.makes,
    slots=1,
    when=lambda c: bool(c.evaluation.anchor),
    uses=lambda c: [*engine_kinds(for_any_model(c.sampling)), *reward_kinds(c)],
    libraries=(*MODELS, "numpy"),
)
def drift(job: Job) -> Counts:
    """The anchor's own fresh samples, and its log-probs of both models' samples.

    The anchor takes the base's place here: `base_logprob` is the log-prob under it.
    """
    from alignment import models

    sides = {side: EVALUATED.read(job.inputs[side]) for side in ("before", "after")}
    models.require_same_vocabulary(job.inputs["anchor"] / MODEL, job.inputs["base"] / MODEL)
    folder, name = job.inputs["anchor"] / MODEL, f"evaluation.anchor {job.config.evaluation.anchor}"
    load = partial(models.load_base, folder, name=name)
    forget_model()
    rows = evaluating.write_held_out(job, load(precision=job.config.sampling.precision, field="sampling.precision"))
    scored = rewards_of(job, rows)
    loaded = load(precision=job.config.evaluation.precision, field=evaluating.MEASURED_IN)
    for row, reward, logprob in zip(rows, scored.values, logprobs(job, loaded, rows), strict=True):
        row |= {"reward": reward, "base_logprob": logprob}
    EVALUATED.write(job.out, rows)
    ANCHORED.write(
        job.out,
        (
            {"side": side, "base_logprob": logprob}
            for side, samples in sides.items()
            for logprob in logprobs(job, loaded, samples)
        ),
    )
    return count_finished(rows)
