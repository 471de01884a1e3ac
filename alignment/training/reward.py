"""Trains a reward model on labelled texts: a small DistilBERT, or a pretrained model with a new head."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from alignment.config import RewardConfig
from alignment.conventions import affixes
from alignment.errors import DataError
from alignment.logits import class_logits, pad, padding_named
from alignment.models import Loaded, load_start, require_context
from alignment.training import group
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

    `tokenizer` is that of a model from scratch. Raises DataError unless both classes occur, and ModelError where the
    model of `reward.start` cannot be used.
    """
    present = sorted(set(labels))
    if present != [0, 1]:
        raise DataError(
            f"reward.model = train needs texts of both classes, found only label {present}; "
            "check data.label_column and data.positive_label, or give a reward model"
        )
    held_out = min(HELD_OUT_TEXTS, len(texts) // 10)
    loaded = starting_model(config, tokenizer, ("NEGATIVE", "POSITIVE"), seed)
    begins, ends = affixes(loaded.tokenizer) if config.start else ((), ())
    room = config.context - len(begins) - len(ends)
    ids = [row[:room] for row in loaded.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]
    loaded.conventions.require_known(ids, loaded.name, loaded.tokenizer)
    rows = [{"ids": row, "label": label} for row, label in zip(ids, labels, strict=True)]
    with padded(loaded, ids) as pad_id:
        openings = Openings(config, pad_id, seed, begins, ends)
        fit(
            loaded.model,
            rows[held_out:],
            settings(config),
            openings,
            skip=openings.skip,
            seed=seed,
            work=work,
            progress=progress,
        )
    loaded.model.eval()
    if not held_out:
        return loaded, {}
    whole = [[*begins, *row, *ends] for row in ids[:held_out]]
    logits = class_logits(loaded, whole, batch_tokens=config.batch_tokens)
    accuracy = float((logits.argmax(1) == np.asarray(labels[:held_out])).mean())
    return loaded, {"validation_accuracy": accuracy}


def starting_model(config: RewardConfig, tokenizer: Any, classes: Sequence[str], seed: int) -> Loaded:
    """What a training begins with: the model of `reward.start` with a new head, or a DistilBERT of random weights.

    It reads `reward.context` tokens, also when it scores. Raises ModelError where `reward.start` sees fewer.
    """
    torch.manual_seed(seed)
    if config.start:
        loaded = load_start(config.start, classes)
        require_context(loaded, config.context, "reward.context")
        loaded.tokenizer.model_max_length = config.context
        return loaded
    names = dict(enumerate(classes))
    model = DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=config.context,
            dim=config.width,
            hidden_dim=4 * config.width,
            n_layers=config.layers,
            n_heads=config.heads,
            attention_dropout=0.0,  # its kernel is several times slower with dropout; other layers keep theirs
            pad_token_id=int(tokenizer.pad_token_id),
            id2label=names,
            label2id={name: index for index, name in names.items()},
        )
    )
    return Loaded(model, tokenizer, "the reward model")


def settings(config: RewardConfig) -> Settings:
    """How it is trained."""
    return Settings(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=max(1, config.steps // 10),
        log_every=min(50, config.steps),
        checkpoint_every=500,
        others={"lr_scheduler_type": "linear"},
    )


@contextmanager
def padded(loaded: Loaded, rows: Sequence[Sequence[int]]) -> Iterator[int]:
    """The token to pad with while it is trained, which its config names for so long.

    A decoder takes the last token that is not padding for a text's last, so where its config names none, one is taken
    that ends no text.
    """
    if loaded.conventions.names_padding:
        yield loaded.pad_id
        return
    used = {token for row in rows for token in row}
    pad_id = next((token for token in range(loaded.conventions.embeddings or 0) if token not in used), loaded.pad_id)
    with padding_named(loaded.model.config, pad_id):
        yield pad_id


class Openings:
    """Makes a batch of texts: each is cut to an opening of random length, and padded."""

    def __init__(
        self, config: RewardConfig, pad_id: int, seed: int, begins: Sequence[int] = (), ends: Sequence[int] = ()
    ) -> None:
        """Lengths are drawn with the seed, by each process its own, from `reward.min_opening` to `reward.context`.

        `begins` and `ends`, which count towards them, stand around every opening.
        """
        around = len(begins) + len(ends)
        self.longest = config.context - around
        self.shortest = max(1, min(config.min_opening, config.context) - around)
        self.begins, self.ends = list(begins), list(ends)
        self.pad_id = pad_id
        self.draws = np.random.default_rng([seed, group.rank()] if group.rank() else seed)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Ids and mask [B, longest opening], and labels [B], of rows with `ids` and `label`."""
        lengths = self._lengths(len(rows))
        batch = pad(
            [
                [*self.begins, *row["ids"][:length], *self.ends] or [self.pad_id]
                for row, length in zip(rows, lengths, strict=True)
            ],
            self.pad_id,
        )
        return batch | {"labels": torch.tensor([row["label"] for row in rows])}

    def skip(self, rows: int) -> None:
        """Draw the lengths of so many rows in vain: a training that goes on has learnt from them before."""
        self._lengths(rows)

    def _lengths(self, rows: int) -> Any:
        return self.draws.integers(self.shortest, self.longest + 1, rows)
