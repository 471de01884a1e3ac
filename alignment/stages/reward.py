"""Stage `reward`: what the reward needs before it can score: a model that is trained here or copied, or nothing."""

from alignment.stages.job import Counts, Job
from alignment.stages.sources import model_source
from alignment.stages.stage import MODELS, stage


@stage(
    title="reward model",
    needs=lambda c: ("texts",) if c.reward.model == "train" else (),
    reads=lambda c: model_source(c, "reward"),
    makes=lambda c: f"{c.reward.steps:,} steps" if c.reward.model == "train" else c.reward.model,
    slots=1,
    trains=lambda c: c.reward.model == "train",
    libraries=MODELS,
)
def reward(job: Job) -> Counts:
    """Whatever the kind of reward prepares."""
    from alignment import models
    from alignment.data import tokenizer
    from alignment.rows import MEASURED, MODEL, TEXTS
    from alignment.stages.store import write_json
    from alignment.training import reward as classifier

    config = job.config.reward
    if config.model != "train":
        models.copy(config.model, job.out / "model", "reward", config.revision)
        return {"copied": 1}
    rows = TEXTS.read(job.inputs["texts"])
    found = [row["text"] for row in rows]
    loaded, measured = classifier.train_reward(
        found,
        [row["label"] for row in rows],
        tokenizer.train_tokenizer(found, job.config.base.vocab_size, config.context),
        config,
        seed=job.config.seed,
        work=job.work,
        progress=job.progress,
    )
    models.save(loaded, job.out / MODEL)
    write_json(job.out / MEASURED, measured)
    return {"texts": len(found), "steps": config.steps}
