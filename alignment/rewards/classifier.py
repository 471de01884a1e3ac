"""The reward model: a small DistilBERT trained from labelled texts where none is given, and the scores of texts."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from alignment.config import RewardConfig
from alignment.conventions import text_config
from alignment.errors import DataError, ScoreError
from alignment.models import Loaded, using
from alignment.selfcheck import SelfCheck
from alignment.training.harness import Progress, Settings, fit

HELD_OUT_TEXTS = 1_000
NO_LIMIT = 10**9  # tokens


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
    fit(model, rows[held_out:], settings, _Openings(config, pad_id, seed), seed=seed, work=work, progress=progress)
    loaded = Loaded(model.eval(), tokenizer)
    if not held_out:
        return loaded, {}
    logits = _logits(loaded, ids[:held_out], config.batch_size * 8, None)
    accuracy = float((logits.argmax(1) == np.asarray(labels[:held_out])).mean())
    return loaded, {"validation_accuracy": accuracy}


def score_texts(
    loaded: Loaded, texts: Sequence[str], *, column: int, batch_size: int, progress: Progress | None = None
) -> NDArray[np.float64]:
    """The raw logit in `column` for each of N texts, shape [N]; batched by length, returned in the given order.

    Raises ModelError where the model lacks a token or cannot be run, SelfCheckError where a batch's logits are not
    those of its texts one by one, and ScoreError, naming the first text, where a score is NaN or infinite.
    """
    limit = _longest(loaded)
    with using(loaded.name, "tokenization"):
        encoded = loaded.tokenizer(list(texts), truncation=limit is not None, max_length=limit, verbose=False)
    ids = encoded["input_ids"]
    loaded.conventions.require_known(ids, loaded.name, loaded.tokenizer)
    scores = _logits(loaded, ids, batch_size, progress, types=encoded.get("token_type_ids"))[:, column]
    if not np.isfinite(scores).all():
        bad = np.flatnonzero(~np.isfinite(scores))
        raise ScoreError(
            f"reward model: {len(bad)} of {len(scores)} scores are not finite, the first for {texts[bad[0]][:80]!r}; "
            "check the model's weights, or its precision"
        )
    return scores


def count_truncated(loaded: Loaded, texts: Sequence[str]) -> int:
    """How many of the texts are longer than the reward model reads, and so are scored by their opening."""
    limit = _longest(loaded)
    if limit is None:
        return 0
    return sum(len(ids) > limit for ids in loaded.tokenizer(list(texts), verbose=False)["input_ids"])


def _longest(loaded: Loaded) -> int | None:
    """The most tokens that model and tokenizer allow; a tokenizer without a limit names a huge one."""
    limits = (loaded.conventions.longest, loaded.tokenizer.model_max_length)
    return min((int(limit) for limit in limits if limit and limit < NO_LIMIT), default=None)


@torch.inference_mode()
def _logits(
    loaded: Loaded,
    ids: Sequence[Sequence[int]],
    batch_size: int,
    progress: Progress | None,
    types: Sequence[Sequence[int]] | None = None,
) -> NDArray[np.float64]:
    """The logits [N, classes] of N texts, given as token ids and, where the tokenizer makes them, token types."""

    def forward(rows: Sequence[int]) -> NDArray[np.float64]:
        given = [ids[row] or [loaded.pad_id] for row in rows]
        pad_id = loaded.pad_id
        if not loaded.conventions.names_padding:  # what is no text's last token hides none
            last = {row[-1] for row in given}
            pad_id = next(token for token in range(len(last) + 1) if token not in last)
            text_config(loaded.model.config).pad_token_id = loaded.model.config.pad_token_id = pad_id
        batch = _pad(given, pad_id)
        if types is not None:
            batch["token_type_ids"] = _pad([types[row] or [0] for row in rows], 0)["input_ids"]
        batch = {name: tensor.to(loaded.model.device) for name, tensor in batch.items()}
        logits: NDArray[np.float64] = loaded.model(**batch).logits.double().cpu().numpy()
        return logits

    check = SelfCheck("reward", loaded.name, loaded.model)
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    found: NDArray[np.float64] = np.empty((len(ids), loaded.model.config.num_labels))
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        with using(loaded.name, "reward"):
            found[chunk] = forward(chunk)
        check.logits(
            found[chunk], partial(_alone, forward, chunk), padded=len({len(ids[index]) for index in chunk}) > 1
        )
        if progress is not None:
            progress(min(start + batch_size, len(order)), len(order))
    return found


def _alone(
    forward: Callable[[Sequence[int]], NDArray[np.float64]], chunk: Sequence[int], row: int
) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = forward([chunk[row]])[0]
    return logits


class _Openings:
    """Cuts each text to an opening of random length, and pads the batch."""

    def __init__(self, config: RewardConfig, pad_id: int, seed: int) -> None:
        self.shortest = min(config.min_opening, config.context)
        self.longest = config.context
        self.pad_id = pad_id
        self.draws = np.random.default_rng(seed)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        lengths = self.draws.integers(self.shortest, self.longest + 1, len(rows))
        batch = _pad(
            [row["ids"][:length] or [self.pad_id] for row, length in zip(rows, lengths, strict=True)], self.pad_id
        )
        return batch | {"labels": torch.tensor([row["label"] for row in rows])}


def _pad(ids: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    width = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[*row, *([pad_id] * (width - len(row)))] for row in ids]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
    }
