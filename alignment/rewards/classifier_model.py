"""The model of the reward `classifier`: trained here on labelled texts, or copied from a folder or the hub."""

from alignment.rewards.protocol import reward_model
from alignment.rows import MEASURED, MODEL, TEXTS
from alignment.stages.job import Counts, Job
from alignment.stages.store import write_json


@reward_model("classifier")
def classifier_model(job: Job) -> Counts:
    """The model in the `save_pretrained` layout, and what was measured where it was trained here."""
    from alignment import models
    from alignment.data.tokenizer import train_tokenizer
    from alignment.training.reward import train_reward

    config = job.config.reward
    if config.model != "train":
        models.copy(config.model, job.out / MODEL, "reward", config.revision)
        return {"copied": 1}
    rows = TEXTS.read(job.inputs["texts"])
    texts = [row["text"] for row in rows]
    loaded, measured = train_reward(
        texts,
        [row["label"] for row in rows],
        train_tokenizer(texts, job.config.base.vocab_size, config.context),
        config,
        seed=job.config.seed,
        work=job.work,
        progress=job.progress,
    )
    models.save(loaded, job.out / MODEL)
    write_json(job.out / MEASURED, measured)
    return {"texts": len(texts), "steps": config.steps}
