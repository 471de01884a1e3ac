"""Stage `base`: the policy's starting point, which is also the reference: trained here, or copied."""

from alignment.rows import MEASURED, MODEL, TEXTS
from alignment.stages.job import Counts, Job
from alignment.stages.sources import model_source
from alignment.stages.stage import MODELS, stage
from alignment.stages.store import write_json


@stage(
    title="base model",
    needs=lambda c: ("texts",) if c.base.model == "train" else (),
    reads=lambda c: model_source(c, "base"),
    makes=lambda c: f"{c.base.steps:,} steps" if c.base.model == "train" else c.base.model,
    slots=lambda c: int(c.base.model == "train"),
    processes=lambda c: c.dpo.processes if c.base.model == "train" else 1,
    trains=lambda c: c.base.model == "train",
    libraries=MODELS,
)
def base(job: Job) -> Counts:
    """The base model in the `save_pretrained` layout, and what was measured where it was trained here."""
    from alignment import adapters, models
    from alignment.data import tokenizer
    from alignment.training import sft

    config = job.config.base
    if config.model != "train":
        folder = models.local_folder(config.model, "base")
        if folder is not None and adapters.is_adapter(folder):
            models.save(adapters.load_merged(folder), job.out / MODEL)
        else:
            models.copy(config.model, job.out / MODEL, "base", config.revision)
        return {"copied": 1}
    texts = [row["text"] for row in TEXTS.read(job.inputs["texts"], ["text"])]
    loaded, measured = sft.train_base(
        texts,
        tokenizer.train_tokenizer(texts, config.vocab_size, config.context),
        config,
        seed=job.config.seed,
        work=job.work,
        progress=job.progress,
    )
    models.save(loaded, job.out / MODEL)
    write_json(job.out / MEASURED, measured)
    return {"texts": len(texts), "steps": config.steps}
