"""Stage `policy`: the base model, trained on the accepted pairs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignment.kinds import LOSSES, TRAINERS
from alignment.rows import HISTORY, MODEL, REFERENCED, Pair
from alignment.stages.job import Counts, Job
from alignment.stages.kept import forget_base
from alignment.stages.sources import fields_of
from alignment.stages.stage import MODELS, stage
from alignment.stages.store import write_json

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded

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
    _require_own_reference(loaded, rows[: job.config.dpo.batch_size])
    outcome = TRAINERS.get(job.config.dpo.trainer)(
        loaded, rows, job.config, work=job.work, progress=job.progress, on_row=job.on_row
    )
    models.save(loaded, job.out / MODEL)
    write_json(job.out / HISTORY, outcome.history)
    return {"pairs": len(rows), "steps": outcome.steps, "stopped_early": int(outcome.stopped_early)}


def _require_own_reference(loaded: "Loaded", rows: Sequence[Pair]) -> None:
    """Raise SelfCheckError unless the policy starts as its reference: what the batch gives, and what the pairs hold."""
    import torch

    from alignment.models import using
    from alignment.selfcheck import SelfCheck, plain_logprob
    from alignment.training.dpo import collate, pair_logps, without_dropout

    def alone(row: int) -> float:
        return plain_logprob(loaded.model, rows[row]["prompt_ids"], rows[row]["chosen_ids"])

    with using(loaded.name, "training"), torch.inference_mode():
        device = loaded.model.device
        batch = {name: tensor.to(device) for name, tensor in collate(rows, loaded.pad_id).items()}
        without_dropout(loaded.model)
        loaded.model.train()  # as it will be: whatever still draws at random shows
        found = pair_logps(loaded.model, batch)[0].chosen.tolist()
        loaded.model.eval()
    lengths = [len(row["chosen_ids"]) for row in rows]
    given = [row["reference_chosen"] for row in rows]
    for work, values in (("training", found), ("the pairs' reference", given)):
        SelfCheck(work, loaded.name, loaded.model).logprobs(values, lengths, alone, padded=True)
