"""The model of the reward `classifier`: trained here on labelled texts or on pairs, or copied."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from alignment.config import AlignConfig
from alignment.data.chat import FIRST
from alignment.data.preferences import FaultyRowError, Preference, preference
from alignment.errors import DataError
from alignment.rewards.protocol import reward_model
from alignment.rows import MEASURED, MODEL, TEXTS, Text
from alignment.stages.job import Counts, Job
from alignment.stages.store import write_json

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded

    Trained: TypeAlias = tuple[Loaded, dict[str, float], Counts]


@reward_model("classifier")
def classifier_model(job: Job) -> Counts:
    """The model in the `save_pretrained` layout, and what was measured where it was trained here."""
    from alignment import models

    config = job.config.reward
    if config.model != "train":
        models.copy(config.model, job.out / MODEL, "reward", config.revision)
        return {"copied": 1}
    rows = TEXTS.read(job.inputs["texts"])
    loaded, measured, counts = (_on_pairs if config.trained_on == "pairs" else _on_labels)(job, rows)
    models.save(loaded, job.out / MODEL)
    write_json(job.out / MEASURED, measured)
    return counts | {"steps": config.steps}


def _on_labels(job: Job, rows: Sequence[Text]) -> "Trained":
    from alignment.training.reward import train_reward

    texts = [row["text"] for row in rows]
    loaded, measured = train_reward(
        texts,
        [row["label"] for row in rows],
        _tokenizer(job.config, texts),
        job.config.reward,
        seed=job.config.seed,
        work=job.work,
        progress=job.progress,
    )
    return loaded, measured, {"texts": len(rows)}


def _on_pairs(job: Job, rows: Sequence[Text]) -> "Trained":
    from alignment.training.reward_pairs import train_on_pairs

    pairs = preferences((row["columns"] for row in rows), job.config.prompts.system)
    if not pairs:
        raise DataError(
            f"reward.trained_on = pairs: none of {len(rows)} rows is a pair; run `plumbline check` on the data"
        )
    texts = [f"{pair.prompt}{side}" for pair in pairs if not pair.is_chat for side in (pair.chosen, pair.rejected)]
    loaded, measured, found = train_on_pairs(
        pairs,
        _tokenizer(job.config, texts),
        job.config.reward,
        seed=job.config.seed,
        work=job.work,
        progress=job.progress,
    )
    return loaded, measured, {"pairs": len(pairs), "faulty": len(rows) - len(pairs)} | found


def preferences(rows: Iterable[str], system: str = "") -> list[Preference]:
    """The pairs among rows whose columns are JSON; chats without a system message begin with `system`, where given."""
    found: list[Preference] = []
    for columns in rows:
        try:
            pair = preference(json.loads(columns or "{}"))
        except FaultyRowError:  # the validation names it
            continue
        if system and not isinstance(pair.prompt, str) and not (pair.prompt and pair.prompt[0]["role"] in FIRST):
            pair = replace(pair, prompt=[{"role": "system", "content": system}, *pair.prompt])
        found.append(pair)
    return found


def _tokenizer(config: AlignConfig, texts: Sequence[str]) -> Any:
    """That of a model from scratch; None where it starts from a pretrained one, which brings its own."""
    from alignment.data.tokenizer import train_tokenizer

    return None if config.reward.start else train_tokenizer(texts, config.base.vocab_size, config.reward.context)
