"""Stage `policy`: the base model, trained on the accepted pairs."""

from alignment.kinds import LOSSES, TRAINERS
from alignment.rows import HISTORY, MODEL, REFERENCED
from alignment.stages.job import Counts, Job
from alignment.stages.kept import forget_base
from alignment.stages.sources import fields_of
from alignment.stages.stage import MODELS, stage
from alignment.stages.store import write_json

COLUMNS = ["prompt_ids", "chosen_ids", "rejected_ids", "reference_chosen", "reference_rejected"]


@stage(
    title="train policy",
    needs=("base", "reference"),
    reads=lambda c: {
        "dpo": fields_of(c.dpo, c.dpo.trainer, c.dpo.loss, without={"checkpoint_every"}),
        "seed": c.seed,
    },
    makes=lambda c: f"{c.dpo.steps:,} steps of {c.dpo.batch_size * c.dpo.accumulation} pairs, {c.dpo.loss}",
    slots=1,
    trains=True,
    uses=lambda c: [(TRAINERS, c.dpo.trainer), (LOSSES, c.dpo.loss)],
    libraries=MODELS,
)
def policy(job: Job) -> Counts:
    """The aligned model, and the metrics of its training.

    The reference's log-probs are fp32; with `dpo.precision` bf16 the policy's forward pass is rounded, so the margin at
    step 0 is near 0 and not 0.
    """
    from alignment import models

    forget_base()
    loaded = models.load_base(job.inputs["base"] / MODEL, name=f"base.model {job.config.base.model}")
    rows = REFERENCED.read(job.inputs["reference"], COLUMNS)
    outcome = TRAINERS.get(job.config.dpo.trainer)(
        loaded, rows, job.config, work=job.work, progress=job.progress, on_row=job.on_row
    )
    models.save(loaded, job.out / MODEL)
    write_json(job.out / HISTORY, outcome.history)
    return {"pairs": len(rows), "steps": outcome.steps, "stopped_early": int(outcome.stopped_early)}
