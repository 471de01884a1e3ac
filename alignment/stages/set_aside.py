"""The texts that are set aside: second judges that are trained here learn from them, and the reward never sees them."""

from dataclasses import replace
from hashlib import sha256

from alignment.config import AlignConfig
from alignment.rewards.parts import described, is_trained
from alignment.rows import TEXTS
from alignment.stages.job import Job


def part(config: AlignConfig) -> float:
    """The part of the texts: none unless both the reward and a second judge are trained here."""
    both = any(map(is_trained, described(config))) and any(map(is_trained, config.evaluation.gold))
    return config.evaluation.gold_fraction if both else 0.0


def is_set_aside(text: str, fraction: float) -> bool:
    """Whether a text is: by its own hash, so that a text that stands twice is on one side."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") < fraction * 2**64


def with_own_texts(job: Job, *, second: bool) -> Job:
    """The job with the texts alone that a `second` judge, or else the reward, may learn from, in `job.scratch`."""
    fraction = part(job.config)
    if not fraction or "texts" not in job.inputs:
        return job
    folder = job.scratch / "texts"
    folder.mkdir(exist_ok=True)
    with TEXTS.writer(folder) as writer:
        for batch in TEXTS.batches(job.inputs["texts"]):
            writer.write(row for row in batch.to_pylist() if is_set_aside(row["text"], fraction) is second)
    return replace(job, inputs={**job.inputs, "texts": folder})
