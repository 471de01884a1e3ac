"""Stage `anchor`: the first base of all rounds, to which the drift is measured."""

from alignment.rows import MODEL
from alignment.stages.job import Counts, Job
from alignment.stages.sources import anchor_source
from alignment.stages.stage import MODELS, stage


@stage(
    title="load the anchor",
    needs=(),
    reads=anchor_source,
    makes=lambda c: c.evaluation.anchor,
    when=lambda c: bool(c.evaluation.anchor),
    libraries=MODELS,
)
def anchor(job: Job) -> Counts:
    """The anchor in the `save_pretrained` layout."""
    from alignment import models

    models.copy(job.config.evaluation.anchor, job.out / MODEL, "anchor", "main")
    return {"copied": 1}
