"""Stage `realism`: both models' samples beside real texts of the domain that nothing was trained on."""

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from alignment.config import AlignConfig
from alignment.errors import DataError
from alignment.kinds import PROMPTS
from alignment.rows import EVALUATED, MEASURED, REALISM, TEXTS, Sample
from alignment.stages.job import Counts, Job
from alignment.stages.sources import of_real_texts, real_data, real_source
from alignment.stages.stage import stage
from alignment.stages.store import write_json

if TYPE_CHECKING:
    from alignment.judging.judges.words import Passages

SIDES = ("before", "after")
LEAST = 50
"""Real texts that are needed: half of them for either judge."""


def opens(config: AlignConfig) -> bool:
    """Whether prompts are openings of texts, so that prompt and completion together are one."""
    return bool(PROMPTS.origin(config.prompts.source).options.get("opens", False))


@stage(
    title="compare with real texts",
    needs=("texts", *SIDES),
    reads=lambda c: {"texts": real_source(c), "rows": c.evaluation.real_rows, "opens": opens(c), "seed": c.seed},
    makes=lambda c: f"beside up to {c.evaluation.real_rows:,} real texts",
    when=lambda c: bool(c.evaluation.real_texts),
    libraries=("datasets", "pyarrow", "numpy", "scikit-learn"),
)
def realism(job: Job) -> Counts:
    """How fluent each sample is to a model of real texts, and how well a classifier tells it from other real texts.

    Raises DataError where there are too few of them.
    """
    from alignment.judging.judges import ngrams
    from alignment.judging.judges.realism import tell_apart
    from alignment.judging.judges.words import Passages

    texts, dropped = real_texts(job)
    sides = {side: EVALUATED.read(job.inputs[side]) for side in SIDES}
    held_out = min(max(map(len, sides.values())), len(texts) // 2)
    real, fitted = texts[:held_out], texts[held_out:]
    model = ngrams.fit(fitted)
    rows: list[dict[str, Any]] = []
    for side, samples in sides.items():
        passages = passages_of(samples, opens=opens(job.config))
        fluent = ngrams.score(model, passages)
        told = tell_apart(real, passages, [sample["prompt_id"] for sample in samples], seed=job.config.seed)
        columns = {
            "words": fluent.words,
            "word_logprobs": fluent.logprobs,
            "bigrams": fluent.bigrams,
            "seen_bigrams": fluent.seen_bigrams,
            "outranked": told.outranked,
            "real_probability": told.real_probabilities,
        }
        rows += [
            {"side": side, "prompt_id": sample["prompt_id"], "index": sample["index"]}
            | {name: None if (value := float(found[number])) != value else value for name, found in columns.items()}
            for number, sample in enumerate(samples)
        ]
    REALISM.write(job.out, rows)
    own = ngrams.score(model, Passages(real))
    write_json(
        job.out / MEASURED,
        {
            "fitted": len(fitted),
            "held_out": len(real),
            "perplexity": own.perplexity,
            "seen_bigrams": own.seen_share,
        },
    )
    return {"samples": len(rows), "real_texts": len(texts), "trained_on": dropped}


def real_texts(job: Job) -> tuple[list[str], int]:
    """Real texts in random order, and how many were left out because the run trained on them, or might have.

    A text that stands twice counts once. Raises DataError where fewer than `LEAST` are left.
    """
    from alignment.data.texts import load_texts

    data = real_data(job.config)
    try:
        rows, _, _ = load_texts(data, job.config.seed + 1, cache=job.scratch)
    except DataError as error:
        raise of_real_texts(error) from error
    found = {sha256(row["text"].encode()).digest(): row["text"] for row in rows}
    count = len(found)
    for batch in TEXTS.batches(job.inputs["texts"], ["text"]):
        for text in batch["text"].to_pylist():
            found.pop(sha256(text.encode()).digest(), None)
    if len(found) < LEAST:
        raise DataError(
            f"evaluation.real_texts = {job.config.evaluation.real_texts}: {len(found):,} of {count:,} different texts "
            f"are not among those that the run starts from, and {LEAST} are needed: name others, or set data.rows so "
            "that some are left"
        )
    return list(found.values())[: job.config.evaluation.real_rows], count - len(found)


def passages_of(samples: Sequence[Sample], *, opens: bool) -> "Passages":
    """What a model wrote, behind its prompt where that opens the text, else by itself."""
    from alignment.judging.judges.words import Passages

    if not opens:
        return Passages([sample["completion"] for sample in samples])
    texts = [sample["text"] for sample in samples]
    return Passages(texts, [len(sample["text"]) - len(sample["completion"]) for sample in samples])
