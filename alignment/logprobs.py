"""Log-probabilities of given completions under a causal model, from token ids and never from text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignment.batching import batch_tokens as tokens_at_once
from alignment.batching import in_batches
from alignment.conventions import embeddings, require_known, text_config
from alignment.models import using
from alignment.selfcheck import SelfCheck, plain_logprob

Tokens = Sequence[int]


@dataclass(frozen=True)
class SequenceBatch:
    """R right-padded sequences: ids [R, L] and the mask of completion tokens [R, L], both from known lengths.

    Right padding lets every architecture number its positions from 0, and causal attention never looks at the padding.
    """

    ids: Tensor
    completion: Tensor

    def to(self, device: torch.device) -> "SequenceBatch":
        """The same batch on another device."""
        return SequenceBatch(self.ids.to(device), self.completion.to(device))


def pad_right(prompts: Sequence[Tokens], completions: Sequence[Tokens], pad_id: int) -> SequenceBatch:
    """Lay R prompts and completions side by side; every prompt holds at least one token."""
    width = max(len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True))
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    completion_mask = torch.zeros((len(prompts), width), dtype=torch.bool)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if not prompt:
            raise ValueError(f"sequence {row} has no prompt token: the first completion token could not be predicted")
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor([*prompt, *completion], dtype=torch.long)
        completion_mask[row, len(prompt) : end] = True
    return SequenceBatch(ids, completion_mask)


def completion_logits(model: Any, batch: SequenceBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that predict the T completion tokens of a batch, fp32: (logits [T, V], targets [T], row of each [T]).

    The output layer gets those T positions only, which saves the prompt's and the padding's share of its cost. All else
    is the model's own forward pass, as some architectures scale or cap what goes into or comes out of that layer.
    """
    predicted = batch.completion[:, 1:]
    head = model.get_output_embeddings()
    with head.register_forward_pre_hook(lambda _, hidden: (hidden[0][:, :-1][predicted][None],)):
        logits = model(input_ids=batch.ids, use_cache=False).logits[0]
    return logits.float(), batch.ids[:, 1:][predicted], predicted.nonzero()[:, 0]


def sum_logprobs(logits: Tensor, targets: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sum log p(token) over each of `count` sequences: [T, V], [T], [T] -> [count], in nats."""
    token = torch.gather(logits.log_softmax(-1), -1, targets[:, None])[:, 0]
    return torch.zeros(count, dtype=token.dtype, device=token.device).index_add(0, rows, token)


@torch.inference_mode()
def score_completions(
    model: Any,
    prompts: Sequence[Tokens],
    completions: Sequence[Tokens],
    *,
    pad_id: int,
    batch_tokens: int = 0,
    name: str = "the model",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """log p(completion | prompt) of N sequences, in nats, shape [N]; batched by length, returned in the given order.

    A batch has at most `batch_tokens` tokens with its padding, as many as the machine takes where that is 0. Raises
    ModelError where the model, which errors call `name`, lacks a token or cannot be run, and SelfCheckError where the
    log-probs of a batch are not those of its sequences one by one.
    """
    device = next(model.parameters()).device
    require_known([*prompts, *completions], embeddings(model), name)
    check = SelfCheck("scoring", name, model)
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    found = np.empty(len(prompts), dtype=np.float64)

    def score(rows: list[int]) -> None:
        batch = pad_right([prompts[i] for i in rows], [completions[i] for i in rows], pad_id).to(device)
        with using(name, "scoring"):
            found[rows] = sum_logprobs(*completion_logits(model, batch), len(rows)).double().cpu().numpy()
        check.logprobs(
            found[rows].tolist(),
            [len(completions[i]) for i in rows],
            partial(_alone, model, prompts, completions, rows),
            padded=len({lengths[i] for i in rows}) > 1,
        )

    tokens = tokens_at_once(model, batch_tokens, _bytes_per_token(model))
    in_batches(lengths, tokens, score, name=name, field="sampling.batch_tokens", progress=progress)
    return found


def _bytes_per_token(model: Any) -> int:
    """What a token takes in a forward pass at most: two rows of logits, and a layer's states, all fp32."""
    hidden = getattr(text_config(model.config), "hidden_size", 0)
    return 4 * (2 * (embeddings(model) or 0) + 32 * hidden)


def _alone(
    model: Any, prompts: Sequence[Tokens], completions: Sequence[Tokens], rows: Sequence[int], row: int
) -> float:
    return plain_logprob(model, prompts[rows[row]], completions[rows[row]])
