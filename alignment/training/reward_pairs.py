"""Trains a reward model on pairs: one number a text, higher for what was preferred."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignment.config import RewardConfig
from alignment.data.preferences import Preference
from alignment.errors import DataError
from alignment.logits import class_logits, pad
from alignment.models import Loaded
from alignment.rewards.reading import longest, read_samples
from alignment.stages.store import digest
from alignment.training.harness import Progress, SafeTrainer, fit
from alignment.training.reward import HELD_OUT_TEXTS, padded, settings, starting_model

SIDES: tuple[Literal["chosen", "rejected"], ...] = ("chosen", "rejected")


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected) of B pairs, shape [B]: Ouyang et al. 2022, equation 1, for pairs."""
    return -logsigmoid(chosen - rejected)


def train_on_pairs(
    pairs: Sequence[Preference],
    tokenizer: Any,
    config: RewardConfig,
    *,
    seed: int,
    work: Path,
    progress: Progress | None = None,
) -> tuple[Loaded, dict[str, float], dict[str, int]]:
    """Train a scalar head, and the model below it, on what was preferred; measures the accuracy on held-out pairs.

    The pairs of a tenth of the prompts, 1,000 pairs at most, are held out. `tokenizer` is that of a model from scratch.
    The counts say how many texts were cut at what the model reads, and how many pairs were left out since their sides
    read alike then. Raises DataError where conversations are to be read, and the model has no chat template, or
    `reward.reads` is whole, and where every pair's sides read alike.
    """
    loaded = starting_model(config, tokenizer, ("REWARD",), seed)
    if any(pair.is_chat for pair in pairs) and not getattr(loaded.tokenizer, "chat_template", None):
        raise DataError(
            "reward.trained_on = pairs: the pairs are conversations, and the model to train has no chat template to "
            "read them by; set reward.start to a model that has one"
        )
    if config.reads == "whole" and any(pair.is_chat for pair in pairs):
        raise DataError(
            "reward.reads = whole: the pairs are conversations, which are learnt from by the chat template; set it to "
            "auto, chat or completion, so that samples are scored by what was learnt"
        )
    counts = {"truncated": 0, "sides_read_alike": 0}
    held_out, kept = (_read(loaded, part, config, counts) for part in hold_out(pairs))
    rows = [{"chosen": chosen, "rejected": rejected} for chosen, rejected in kept]
    if not rows:
        raise DataError(
            f"reward.trained_on = pairs: both sides of every pair read alike in {longest(loaded)} tokens; raise "
            "reward.context, or give pairs that differ"
        )
    with padded(loaded, [row[side] for row in rows for side in SIDES]) as pad_id:

        def collate(batch: Sequence[Mapping[str, list[int]]]) -> dict[str, Tensor]:
            """Ids and mask [2B, longest] of B pairs: the chosen texts, then the rejected ones."""
            return pad([row[side] or [pad_id] for side in SIDES for row in batch], pad_id)

        fit(
            loaded.model,
            rows,
            settings(config),
            collate,
            seed=seed,
            work=work,
            name="the reward model",
            progress=progress,
            trainer=PairTrainer,
        )
    loaded.model.eval()
    if not held_out:
        return loaded, {}, counts
    chosen, rejected = (
        class_logits(loaded, list(side), batch_tokens=config.batch_tokens)[:, 0] for side in zip(*held_out, strict=True)
    )
    accuracy = float(np.mean((chosen > rejected) + 0.5 * (chosen == rejected)))
    return loaded, {"validation_accuracy": accuracy}, counts


def hold_out(pairs: Sequence[Preference]) -> tuple[list[Preference], list[Preference]]:
    """A tenth of the pairs, at most, and the others; no prompt is on both sides."""
    by_prompt: dict[str, list[Preference]] = defaultdict(list)
    for pair in pairs:
        by_prompt[digest(pair.prompt)].append(pair)
    held_out: list[Preference] = []
    kept: list[Preference] = []
    most = min(HELD_OUT_TEXTS, len(pairs) // 10)
    for prompt in sorted(by_prompt):
        of_prompt = by_prompt[prompt]
        (held_out if len(held_out) + len(of_prompt) <= most else kept).extend(of_prompt)
    return held_out, kept


def as_sample(pair: Preference, side: Literal["chosen", "rejected"]) -> dict[str, Any]:
    """One side of a pair as a sample, which a reward scores; of several turns, the last is the completion."""
    completion = getattr(pair, side)
    if isinstance(completion, str):
        return {"text": f"{pair.prompt}{completion}", "completion": completion, "messages": []}
    *turns, last = completion
    return {"text": "", "completion": last.get("content", ""), "messages": [*pair.prompt, *turns]}


class PairTrainer(SafeTrainer):
    """A `transformers.Trainer` on the Bradley-Terry loss: the mean over a batch's pairs."""

    def batch_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Of a batch [2B, ...], the chosen texts first."""
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        chosen, rejected = torch.chunk(logits[:, 0].float(), 2)
        return bradley_terry(chosen, rejected).mean()


def _read(
    loaded: Loaded, pairs: Sequence[Preference], config: RewardConfig, counts: dict[str, int]
) -> list[tuple[list[int], list[int]]]:
    """Chosen and rejected of each pair in token ids, read as they are when they are scored, without pairs of one."""
    how = config.reads if config.reads == "completion" or not any(pair.is_chat for pair in pairs) else "chat"
    chosen, rejected = (read_samples(loaded, [as_sample(pair, side) for pair in pairs], how) for side in SIDES)
    found = [(one, other) for one, other in zip(chosen.ids, rejected.ids, strict=True) if one != other]
    counts["truncated"] += chosen.truncated + rejected.truncated
    counts["sides_read_alike"] += len(pairs) - len(found)
    return found
