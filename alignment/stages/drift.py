"""Stage `drift`: how far the base and the aligned model are from the anchor."""

from alignment.kinds import ENGINES, METRICS, REWARDS
from alignment.rows import DRIFT, EVALUATED, MODEL
from alignment.stages import evaluating
from alignment.stages.drawing import count_finished
from alignment.stages.job import Counts, Job
from alignment.stages.likelihood import logprobs
from alignment.stages.scoring import rewards_of
from alignment.stages.stage import MODELS, stage
from alignment.stages.store import write_json

ANCHORED = [(METRICS, name) for name in METRICS.names()]


@stage(
    title="measure drift",
    needs=("anchor", "base", "reward", "prompts", "before", "after"),
    reads=evaluating.reads,
    makes=evaluating.makes,
    slots=1,
    when=lambda c: bool(c.evaluation.anchor),
    uses=lambda c: [(ENGINES, c.sampling.engine), (REWARDS, c.reward.kind), *ANCHORED],
    libraries=MODELS,
)
def drift(job: Job) -> Counts:
    """The anchor's own fresh samples, and its log-probs of both models' samples.

    The anchor takes the base's place here: `base_logprob` is the log-prob under it.
    """
    from alignment import models
    from alignment.judging import comparison
    from alignment.judging.measured import from_rows

    sides = {side: EVALUATED.read(job.inputs[side]) for side in ("before", "after")}
    models.require_same_vocabulary(job.inputs["anchor"] / MODEL, job.inputs["base"] / MODEL)
    folder, name = job.inputs["anchor"] / MODEL, f"evaluation.anchor {job.config.evaluation.anchor}"
    loaded = models.load_base(folder, precision=job.config.sampling.precision, name=name)
    rows = evaluating.write_held_out(job, loaded)
    scored, _ = rewards_of(job, rows)
    for row, score in zip(rows, scored, strict=True):
        row["reward"] = score
    loaded = models.load_base(folder, name=name)
    for side in (rows, *sides.values()):
        for row, logprob in zip(side, logprobs(job, loaded, side), strict=True):
            row["base_logprob"] = logprob
    found = comparison.drift(from_rows(rows), from_rows(sides["before"]), from_rows(sides["after"]))
    EVALUATED.write(job.out, rows)
    write_json(job.out / DRIFT, found.model_dump(mode="json"))
    return count_finished(rows)
