"""Stage `policy`: the base model, trained on the accepted pairs."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from alignment.config import AlignConfig
from alignment.config.label import objective
from alignment.config.policy import global_batch, has_alpha
from alignment.errors import PairsError
from alignment.kinds import DIVERGENCES, LOSSES, TRAINERS
from alignment.rows import ADAPTER, HISTORY, MODEL, REFERENCED
from alignment.stages.job import Counts, Job
from alignment.stages.kept import forget_model
from alignment.stages.row_file import RowFile
from alignment.stages.sources import fields_of
from alignment.stages.stage import MODELS, stage
from alignment.stages.store import write_json

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded

COLUMNS = ["prompt_ids", "chosen_ids", "rejected_ids", "reference_chosen", "reference_rejected", "gap"]
PAIRS = "pairs.arrow"
UNREAD = {
    *("checkpoint_every", "gradient_checkpointing"),
    *("batch_size", "accumulation", "processes", "sharding"),  # how a step is dealt out; its size is read
}
ADAPTER_FIELDS = {"adapter_rank", "adapter_alpha", "adapter_targets"}


def reads(config: AlignConfig) -> Any:
    """The settings of the training; of an adapter, where one is trained, with the library that makes it."""
    dpo, unread = config.dpo, UNREAD
    loaded = {} if config.base.load_in == "fp32" else {"load_in": config.base.load_in}
    if not has_alpha(dpo):
        unread = unread | {"divergence_alpha"}
    if dpo.adapter == "none":
        unread = unread | ADAPTER_FIELDS
    fields = fields_of(dpo, dpo.trainer, dpo.loss, without=unread) | {"global_batch": global_batch(dpo)}
    settings = {"dpo": fields, "seed": config.seed}
    if dpo.adapter == "none":
        return settings
    return settings | {"peft": version("peft")} | loaded


def makes(config: AlignConfig) -> str:
    """What a plan says of it."""
    dpo = config.dpo
    adapter = "" if dpo.adapter == "none" else f", {dpo.adapter} of rank {dpo.adapter_rank}"
    return f"{dpo.steps:,} steps of {global_batch(dpo)} pairs, {objective(dpo)}{adapter}"


@stage(
    title="train policy",
    needs=("base", "reference"),
    reads=reads,
    makes=makes,
    slots=1,
    processes=lambda c: c.dpo.processes,
    trains=True,
    uses=lambda c: [(TRAINERS, c.dpo.trainer), (LOSSES, c.dpo.loss), (DIVERGENCES, c.dpo.divergence)],
    libraries=MODELS,
)
def policy(job: Job) -> Counts:
    """The aligned model, and the metrics of its training; an adapter is merged into the model, and kept beside it.

    It starts as its reference, whose log-probs were computed in the same precision, so the margin at step 0 is 0.
    """
    from alignment import models
    from alignment.training import adapter, group

    forget_model()
    config = job.config
    loaded, rows = untrained(job), pairs_of(job)
    counts = {"pairs": len(rows)}
    if config.dpo.adapter != "none":
        counts |= adapter.trainable(loaded.model)
    outcome = TRAINERS.get(config.dpo.trainer)(
        loaded, rows, config, work=job.work, progress=job.progress, on_row=job.on_row
    )
    if not group.is_first():
        return counts
    if config.dpo.adapter != "none":
        loaded = merged(job, loaded)
    models.save(loaded, job.out / MODEL)
    write_json(job.out / HISTORY, outcome.history)
    return counts | {"steps": outcome.steps, "stopped_early": int(outcome.stopped_early)}


def merged(job: Job, loaded: "Loaded") -> "Loaded":
    """A policy with an adapter as one model, in fp32; the adapter is kept beside it, with what its base is known by.

    What is rounded is read again, so that the adapter is merged into the base as it was.
    """
    from alignment import adapters
    from alignment.device import on_cpu

    if job.config.base.load_in == "fp32":
        return _kept_and_merged(job, loaded)
    with on_cpu():  # a GPU that has room for what is rounded may have none for this
        exact = untrained(job, "fp32")
        adapters.transfer(loaded.model, exact.model)
        return _kept_and_merged(job, exact)


def _kept_and_merged(job: Job, exact: "Loaded") -> "Loaded":
    from alignment import adapter_bases, adapters

    named, mark = name_of_base(job.config, job.digests["base"]), adapter_bases.fingerprint(exact.model)
    adapters.save(exact.model, job.out / ADAPTER, *named, fingerprint=mark)
    return adapters.merge(exact)


def untrained(job: Job, load_in: str = "") -> "Loaded":
    """The base model as its training begins, with a new adapter where one is trained; by default as `base.load_in`."""
    from alignment import bits, models
    from alignment.device import device
    from alignment.training import adapter

    config = job.config
    if not load_in:
        bits.require(config, gpu=device().type == "cuda")
    precision = load_in or config.base.load_in
    folder, name = job.inputs["base"] / MODEL, f"base.model {config.base.model}"
    loaded = models.load_base(folder, precision=precision, field="base.load_in", name=name)
    return loaded if config.dpo.adapter == "none" else adapter.attach(loaded, config.dpo, config.seed)


def pairs_of(job: Job) -> RowFile:
    """The pairs that it learns from, read one by one from a file in `job.scratch`, by each process from its own.

    Raises PairsError where the loss learns from scores, and pairs have none.
    """
    from alignment.training import group

    _require_scores(job)
    path = job.scratch / (f"{group.rank()}-{PAIRS}" if group.rank() else PAIRS)
    schema = pa.schema([REFERENCED.schema.field(name) for name in COLUMNS])
    return RowFile(path, schema, REFERENCED.batches(job.inputs["reference"], COLUMNS))


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
