"""Trains a small GPT-2 from scratch on texts: the base model where none is given."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from alignment.config import BaseConfig
from alignment.layout import Layout, lay_padded
from alignment.logprobs import logprobs, score_completions
from alignment.models import Loaded
from alignment.training.harness import Progress, SafeTrainer, Settings, fit

HELD_OUT_SEQUENCES = 256


def blocks(tokenized: Sequence[Sequence[int]], context: int, bos_id: int, eos_id: int) -> list[list[int]]:
    """Training sequences of at most `context` tokens: the opening of each text, and the whole blocks that follow it.

    Openings start at position 0, where prompts will; every other text opens with BOS, so that the empty prompt is known
    too. The end of a text is EOS; what is left after the last whole block is not used.
    """
    found: list[list[int]] = []
    for index, ids in enumerate(tokenized):
        sequence = [bos_id, *ids, eos_id] if index % 2 else [*ids, eos_id]
        found.append(sequence[:context])
        found.extend(
            sequence[start : start + context] for start in range(context, len(sequence) - context + 1, context)
        )
    return found


def train_base(
    texts: Sequence[str],
    tokenizer: Any,
    config: BaseConfig,
    *,
    seed: int,
    work: Path,
    progress: Progress | None = None,
) -> tuple[Loaded, dict[str, float]]:
    """Train on the texts and measure the perplexity of sequences that were held out; resumes from `work`."""
    eos_id = int(tokenizer.eos_token_id)
    ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    sequences = blocks(ids, config.context, int(tokenizer.bos_token_id), eos_id)
    held_out = min(HELD_OUT_SEQUENCES, len(sequences) // 10)
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=config.context,
            n_embd=config.width,
            n_layer=config.layers,
            n_head=config.heads,
            activation_function="gelu_pytorch_tanh",  # GPT-2's own function in one kernel
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=eos_id,
            eos_token_id=eos_id,
            pad_token_id=eos_id,
        )
    )
    settings = Settings(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=max(1, config.steps // 10),
        log_every=min(50, config.steps),
        checkpoint_every=500,
        others={"lr_scheduler_type": "cosine", "adam_beta2": 0.95, "weight_decay": 0.01},
    )
    fit(
        model,
        sequences[held_out:],
        settings,
        lambda rows: collate(rows, eos_id),
        seed=seed,
        work=work,
        progress=progress,
        trainer=SFTTrainer,
    )
    loaded = Loaded(model.eval(), tokenizer)
    return loaded, {"validation_perplexity": _perplexity(loaded, sequences[:held_out])} if held_out else {}


def collate(sequences: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """The tensors of a padded layout, in which each token but a sequence's first is predicted."""
    return lay_padded([ids[:1] for ids in sequences], [ids[1:] for ids in sequences], pad_id).tensors()


def next_token_loss(model: Any, layout: Layout) -> torch.Tensor:
    """The mean NLL of the predicted tokens, in nats."""
    found, _ = logprobs(model, layout)
    return -found.sum() / max(1, len(layout.targets))


class SFTTrainer(SafeTrainer):
    """`transformers.Trainer` on the next token's log-prob; the output layer sees no padding."""

    def items(self, inputs: dict[str, Any]) -> int:
        """The tokens that a batch predicts."""
        return len(inputs["targets"]) if super().items(inputs) else 0

    def batch_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The mean over them."""
        return next_token_loss(model, Layout.of(inputs))


def _perplexity(loaded: Loaded, sequences: Sequence[Sequence[int]]) -> float:
    first, rest = [ids[:1] for ids in sequences], [ids[1:] for ids in sequences]
    logprobs = score_completions(loaded.model, first, rest, pad_id=loaded.pad_id)
    return math.exp(-logprobs.sum() / sum(map(len, rest)))
