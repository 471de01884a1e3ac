"""Stage `policy`: the base model, trained on the accepted pairs."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from alignment.config import AlignConfig
from alignment.config.label import objective
from alignment.config.policy import has_alpha
from alignment.errors import PairsError
from alignment.kinds import DIVERGENCES, LOSSES, TRAINERS
from alignment.rows import ADAPTER, HISTORY, MODEL, REFERENCED
from alignment.stages.job import Counts, Job
from alignment.stages.kept import forget_base
from alignment.stages.row_file import RowFile
from alignment.stages.sources import fields_of
from alignment.stages.stage import MODELS, stage
from alignment.stages.store import write_json

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded

COLUMNS = ["prompt_ids", "chosen_ids", "rejected_ids", "reference_chosen", "reference_rejected", "gap"]
PAIRS = "pairs.arrow"
ADAPTER_FIELDS = {"adapter_rank", "adapter_alpha", "adapter_targets"}


def reads(config: AlignConfig) -> Any:
    """The settings of the training; of an adapter, where one is trained, with the library that makes it."""
    dpo, unread = config.dpo, {"checkpoint_every", "gradient_checkpointing"}
    if not has_alpha(dpo):
        unread = unread | {"divergence_alpha"}
    if dpo.adapter == "none":
        return {"dpo": fields_of(dpo, dpo.trainer, dpo.loss, without=unread | ADAPTER_FIELDS), "seed": config.seed}
    return {"dpo": fields_of(dpo, dpo.trainer, dpo.loss, without=unread), "seed": config.seed, "peft": version("peft")}


def makes(config: AlignConfig) -> str:
    """What a plan says of it."""
    dpo = config.dpo
    adapter = "" if dpo.adapter == "none" else f", {dpo.adapter} of rank {dpo.adapter_rank}"
    return f"{dpo.steps:,} steps of {dpo.batch_size * dpo.accumulation} pairs, {objective(dpo)}{adapter}"


@stage(
    title="train policy",
    needs=("base", "reference"),
    reads=reads,
    makes=makes,
    slots=1,
    trains=True,
    uses=lambda c: [(TRAINERS, c.dpo.trainer), (LOSSES, c.dpo.loss), (DIVERGENCES, c.dpo.divergence)],
    libraries=MODELS,
)
def policy(job: Job) -> Counts:
    """The aligned model, and the metrics of its training; an adapter is merged into the model, and kept beside it.

    The reference's log-probs are fp32; with `dpo.precision` bf16 the policy's forward pass is rounded, so the margin at
    step 0 is near 0 and not 0.
    """
    from alignment import adapters, models
    from alignment.training import adapter

    forget_base()
    config = job.config
    loaded, rows = untrained(job), pairs_of(job)
    counts = {"pairs": len(rows)}
    if config.dpo.adapter != "none":
        counts |= adapter.trainable(loaded.model)
    outcome = TRAINERS.get(config.dpo.trainer)(
        loaded, rows, config, work=job.work, progress=job.progress, on_row=job.on_row
    )
    if config.dpo.adapter != "none":
        adapters.save(loaded.model, job.out / ADAPTER, *name_of_base(config, job.digests["base"]))
        loaded = adapters.merge(loaded)
    models.save(loaded, job.out / MODEL)
    write_json(job.out / HISTORY, outcome.history)
    return counts | {"steps": outcome.steps, "stopped_early": int(outcome.stopped_early)}


def untrained(job: Job) -> "Loaded":
    """The base model as its training begins: with a new adapter, where one is trained."""
    from alignment import models
    from alignment.training import adapter

    config = job.config
    loaded = models.load_base(job.inputs["base"] / MODEL, name=f"base.model {config.base.model}")
    return loaded if config.dpo.adapter == "none" else adapter.attach(loaded, config.dpo, config.seed)


def pairs_of(job: Job) -> RowFile:
    """The pairs that it learns from, read one by one from a file in `job.work`.

    Raises PairsError where the loss learns from scores, and pairs have none.
    """
    _require_scores(job)
    schema = pa.schema([REFERENCED.schema.field(name) for name in COLUMNS])
    return RowFile(job.work / PAIRS, schema, REFERENCED.batches(job.inputs["reference"], COLUMNS))


def _require_scores(job: Job) -> None:
    from alignment.training.losses import needs_scores

    name, pairs = job.config.dpo.loss, job.inputs["reference"]
    if not needs_scores(LOSSES.get(name)):
        return
    if missing := sum(batch["gap"].null_count for batch in REFERENCED.batches(pairs, ["gap"])):
        raise PairsError(
            f"dpo.loss = {name} learns from the scores of both texts, and {missing:,} of {REFERENCED.count(pairs):,} "
            "pairs have none: take another loss, or set pairs.source to samples, which are scored"
        )


def name_of_base(config: AlignConfig, digest: str) -> tuple[str, str]:
    """How an adapter names its base, and the revision: on the hub, or as a folder that is to be put beside its own."""
    from alignment import adapters, models

    if config.base.model == "train":
        return f"../base-{digest[:12]}", "main"
    folder = models.local_folder(config.base.model, "base")
    if folder is None:
        return config.base.model, config.base.revision
    return f"../{folder.resolve().name}{'-merged' if adapters.is_adapter(folder) else ''}", "main"
