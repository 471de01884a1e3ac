"""Stage `samples`: what the base model writes to each training prompt, drawn in parts that survive a crash."""

from alignment.config import AlignConfig
from alignment.rows import SAMPLES
from alignment.stages.drawing import count_finished, draw
from alignment.stages.job import Counts, Job
from alignment.stages.kept import base_model
from alignment.stages.sides import training
from alignment.stages.sources import drawn_by, engine_kinds, pairs_are_sampled, sampling_source
from alignment.stages.stage import MODELS, Parts, Refs, stage


def ranges(config: AlignConfig, refs: Refs) -> list[tuple[int, int]]:
    """The training prompts, first to last (excluded), that are sampled together."""
    prompts, size = refs["prompts"].counts["train"], config.sampling.shard_prompts
    return [(first, min(first + size, prompts)) for first in range(0, prompts, size)]


def part(job: Job) -> Counts:
    """The samples of one range of training prompts."""
    rows = training(job.inputs["prompts"], *job.part)
    loaded = base_model(job, "sampling.precision")
    sampling = job.config.sampling
    drawn = draw(job, loaded, rows, sampling.samples_per_prompt, "train", sampling)
    SAMPLES.write(job.out, drawn)
    return count_finished(drawn)


@stage(
    title="draw samples",
    needs=("base", "prompts"),
    reads=lambda c: {
        "sampling": sampling_source(c.sampling, without={"batch_tokens", "shard_prompts"}),
        "seed": c.seed,
    },
    makes=lambda c: f"up to {c.prompts.count * c.sampling.samples_per_prompt:,} samples{drawn_by(c.sampling)}",
    slots=1,
    when=pairs_are_sampled,
    uses=lambda c: engine_kinds(c.sampling),
    libraries=(*MODELS, "numpy"),
    parts=Parts("sample shard", ranges, part),
)
def samples(job: Job) -> Counts:
    """The samples of all prompts, in order."""
    return dict(job.counted)
