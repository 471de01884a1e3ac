"""Stage `prompts`: prompts to train on and prompts that are held out, none on both sides."""

from alignment.kinds import PROMPTS as SOURCES
from alignment.rows import PROMPTS, TEXTS
from alignment.stages.job import Counts, Job
from alignment.stages.kept import base_model
from alignment.stages.sources import prompts_source
from alignment.stages.stage import MODELS, stage


@stage(
    title="cut prompts",
    needs=("texts", "base"),
    reads=prompts_source,
    makes=lambda c: f"up to {c.prompts.count:,} to train on, {c.prompts.eval_count:,} held out",
    uses=lambda c: [(SOURCES, c.prompts.source)],
    libraries=MODELS,
)
def prompts(job: Job) -> Counts:
    """The prompts of both sides; each begins as the base's tokenizer begins a text."""
    from alignment.data.prompts import Prompts, read_ids

    config = job.config
    loaded = base_model(job)
    found: Prompts = SOURCES.get(config.prompts.source)(
        lambda: [row["text"] for row in TEXTS.read(job.inputs["texts"], ["text"])],
        loaded,
        config,
        read_ids(config.prompts.exclude) if config.prompts.exclude else set(),
    )
    kept = [*found.train, *found.held_out]
    PROMPTS.write(
        job.out,
        (
            {
                "prompt_id": prompt.id,
                "prompt_ids": list(prompt.ids),
                "prompt": loaded.decode([prompt.ids], [True])[0],
                "split": prompt.split,
            }
            for prompt in kept
        ),
    )
    return found.counts
