"""Trains a small DistilBERT on labelled texts: the classifier's reward model where none is given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from alignment.config import RewardConfig
from alignment.errors import DataError
from alignment.logits import class_logits, pad
from alignment.models import Loaded
from alignment.training.harness import Progress, Settings, fit

HELD_OUT_TEXTS = 1_000


def train_reward(
    texts: Sequence[str],
    labels: Sequence[int],
    tokenizer: Any,
    config: RewardConfig,
    *,
    seed: int,
    work: Path,
    progress: Progress | None = None,
) -> tuple[Loaded, dict[str, float]]:
    """Train on openings of random length, since unfinished texts are what it will score; measures held-out accuracy.

    Raises DataError unless both classes occur.
    """
    present = sorted(set(labels))
    if present != [0, 1]:
        raise DataError(
            f"reward.model = train needs texts of both classes, found only label {present}; "
            "check data.label_column and data.positive_label, or give a reward model"
        )
    held_out = min(HELD_OUT_TEXTS, len(texts) // 10)
    ids = [row[: config.context] for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    rows = [{"ids": row, "label": label} for row, label in zip(ids, labels, strict=True)]
    torch.manual_seed(seed)
    pad_id = int(tokenizer.pad_token_id)
    model = DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=config.context,
            dim=config.width,
            hidden_dim=4 * config.width,
            n_layers=config.layers,
            n_heads=config.heads,
            attention_dropout=0.0,  # its kernel is several times slower with dropout; other layers keep theirs
            pad_token_id=pad_id,
            id2label={0: "NEGATIVE", 1: "POSITIVE"},
            label2id={"NEGATIVE": 0, "POSITIVE": 1},
        )
    )
    settings = Settings(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=max(1, config.steps // 10),
        log_every=min(50, config.steps),
        checkpoint_every=500,
        others={"lr_scheduler_type": "linear"},
    )
    fit(model, rows[held_out:], settings, Openings(config, pad_id, seed), seed=seed, work=work, progress=progress)
    loaded = Loaded(model.eval(), tokenizer)
    if not held_out:
        return loaded, {}
    logits = class_logits(loaded, ids[:held_out], batch_size=config.batch_size * 8)
    accuracy = float((logits.argmax(1) == np.asarray(labels[:held_out])).mean())
    return loaded, {"validation_accuracy": accuracy}


class Openings:
    """Makes a batch of texts: each is cut to an opening of random length, and padded."""

    def __init__(self, config: RewardConfig, pad_id: int, seed: int) -> None:
        """Lengths are drawn with the seed, from `reward.min_opening` to `reward.context` tokens."""
        self.shortest = min(config.min_opening, config.context)
        self.longest = config.context
        self.pad_id = pad_id
        self.draws = np.random.default_rng(seed)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Ids and mask [B, longest opening], and labels [B], of rows with `ids` and `label`."""
        lengths = self.draws.integers(self.shortest, self.longest + 1, len(rows))
        batch = pad(
            [row["ids"][:length] or [self.pad_id] for row, length in zip(rows, lengths, strict=True)], self.pad_id
        )
        return batch | {"labels": torch.tensor([row["label"] for row in rows])}
