"""Sampling in batches that are drawn to their end: for any model, with a cache that is grown by the model, or none."""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from alignment.config import SamplingConfig
from alignment.conventions import Conventions
from alignment.device import is_exact
from alignment.errors import ModelError
from alignment.models import using
from alignment.sampling.choice import draw
from alignment.sampling.engine import Completion, Request
from alignment.sampling.prompts import distinct, pad_left
from alignment.sampling.stops import Stops

logger = logging.getLogger(__name__)

UNSPLIT: WeakSet[Any] = WeakSet()
"""Models whose cache has failed: each is told of once, and goes without from then on."""


@torch.inference_mode()
def draw_batch(
    model: Any,
    requests: Sequence[Request],
    config: SamplingConfig,
    conventions: Conventions,
    stops: Stops | None,
    name: str,
) -> list[Completion]:
    """Draw requests that run together from their first to their last token. Raises ModelError where the model fails."""
    device = next(model.parameters()).device
    pad_id, ends = conventions.pad_id, torch.tensor(conventions.ends, device=device)
    prompts, places = distinct([request.prompt for request in requests])
    ids, mask = (each.to(device) for each in pad_left(prompts, pad_id))
    of_request = torch.tensor(places, device=device)
    room = torch.tensor([len(request.uniforms) for request in requests], device=device)
    uniforms = _rectangle([request.uniforms for request in requests]).to(device)

    step = _Stepper(model, mask, conventions.first_position, name, cached=config.cache)
    logits = step.prefill(ids, of_request)
    steps = int(room.max())
    tokens = torch.full((len(requests), steps), pad_id, dtype=torch.long, device=device)
    logprobs = torch.zeros((len(requests), steps), dtype=torch.float64, device=device)
    lengths = torch.zeros(len(requests), dtype=torch.long, device=device)
    alive = torch.ones(len(requests), dtype=torch.bool, device=device)
    finished = ~alive
    for position in range(steps):
        alive = alive & (position < room)
        token, logprob = draw(logits, uniforms[:, position], config)
        tokens[:, position] = torch.where(alive, token, pad_id)
        logprobs[:, position] = torch.where(alive, logprob, 0.0)
        lengths += alive
        ended = torch.isin(token, ends)
        finished = finished | (alive & ended)
        alive = alive & ~ended
        if stops is not None:
            for row, kept in _stopped(stops, tokens[:, : position + 1], alive):
                alive[row], finished[row], lengths[row] = False, True, kept
                logprobs[row, kept:] = 0.0
        if position + 1 == steps or not bool(alive.any()):
            break
        logits = step.advance(tokens[:, position], alive)
    exact = is_exact(model)
    return [
        Completion(row[:length], done, logprob, exact)
        for row, length, done, logprob in zip(
            tokens.tolist(), lengths.tolist(), finished.tolist(), logprobs.sum(1).tolist(), strict=True
        )
    ]


def _stopped(stops: Stops, tokens: Tensor, alive: Tensor) -> list[tuple[int, int]]:
    """The rows of tokens [B, T] that have just come to a stop text, each with how many of its tokens are kept."""
    rows = alive.nonzero()[:, 0].tolist()
    found = stops.kept(tokens[rows].tolist()) if rows else []
    return [(row, kept) for row, kept in zip(rows, found, strict=True) if kept is not None]


class _Stepper:
    """Runs a model over left-padded prompts and then token by token, keeping its cache, mask and positions in step.

    A model that hands out no cache, may keep none, or has one that cannot be split between samples, is given the whole
    sequences at every step: slow, and right.
    """

    def __init__(self, model: Any, mask: Tensor, first_position: int, name: str, *, cached: bool) -> None:
        self.model = model
        self.name = name
        self.mask = mask
        self.first_position = first_position
        self.padded = not bool(mask.all())
        self.takes = inspect.signature(model.forward).parameters
        self.cache_name = _cache_name(model) if cached and model not in UNSPLIT else ""
        self.cache: Any = None
        self.columns: list[Tensor] = []

    def prefill(self, ids: Tensor, repeats: Tensor) -> Tensor:
        """Run P distinct prompts once and spread their cache over the N requests: -> logits [N, V], fp32."""
        logits = self._step(lambda: self._spread(ids, repeats), lambda: self._forward(ids)[repeats])
        self.mask = self.mask[repeats]
        self.columns = [ids[repeats]]
        return logits

    def advance(self, token: Tensor, alive: Tensor) -> Tensor:
        """Append one token [N] to every sequence: -> logits of the next [N, V], fp32.

        Sequences that are no longer alive stay at their last position: a next one could lie beyond the model's context.
        """
        self.mask = torch.cat([self.mask, alive[:, None]], 1)
        self.columns.append(token[:, None])
        return self._step(lambda: self._forward(token[:, None]), lambda: self._forward(torch.cat(self.columns, 1)))

    def _spread(self, ids: Tensor, repeats: Tensor) -> Tensor:
        logits = self._forward(ids)
        if self.cache is not None:
            with using(self.name, "sampling"):
                self.cache.reorder_cache(repeats)  # unlike `batch_select_indices`, recurrent layers have it too
        return logits[repeats]

    def _step(self, cached: Callable[[], Tensor], whole: Callable[[], Tensor]) -> Tensor:
        """A step with the cache where there is one; else, or where that fails, one over the whole sequences."""
        if not self.cache_name:
            return whole()
        try:
            logits = cached()
        except ModelError as error:
            fault = error.__cause__
            if type(fault).__name__ == "OutOfMemoryError":
                raise
        else:
            if self.cache is None:
                self.cache_name = ""
            return logits
        self.cache_name, self.cache = "", None
        logits = whole()
        UNSPLIT.add(self.model)
        logger.warning(
            "%s: its cache cannot be split between samples (%s: %s); from here on each token costs a pass over the "
            "whole text, which is slow and gives the same log-probs",
            self.name,
            type(fault).__name__,
            " ".join(str(fault).split())[:120],
        )
        return logits

    def _forward(self, ids: Tensor) -> Tensor:
        """Run the last columns of the sequences: their logits of the next token, and the cache where there is one."""
        extra: dict[str, Any] = {"attention_mask": self.mask.long()} if self.padded else {}
        if "position_ids" in self.takes:
            positions = (self.mask.long().cumsum(1) - 1).clamp(min=0) + self.first_position
            extra["position_ids"] = positions[:, -ids.shape[1] :]
        if self.cache_name:
            extra |= {self.cache_name: self.cache, "use_cache": True}
        with using(self.name, "sampling"):
            out = self.model(input_ids=ids, logits_to_keep=1, **extra)
        self.cache = getattr(out, self.cache_name, None) if self.cache_name else None
        logits: Tensor = out.logits[:, -1].float()
        return logits


def _cache_name(model: Any) -> str:
    """What a model calls the cache that it takes and hands out; empty where it has none."""
    takes = inspect.signature(model.forward).parameters
    return next((name for name in ("past_key_values", "cache_params") if name in takes), "")


def keeps_cache(model: Any) -> bool:
    """Whether a model's cache is one of keys and values, so far as its signature says."""
    return _cache_name(model) == "past_key_values" and not getattr(model, "_is_stateful", False)


def bears_padding(model: Any) -> bool:
    """Whether prompts of several lengths may share a batch.

    Padding on the left would run through a recurrent state, and shift the positions that a model counts by itself.
    """
    return keeps_cache(model) and "position_ids" in inspect.signature(model.forward).parameters


def together(requests: Sequence[Request], *, alike: bool) -> Iterator[list[int]]:
    """The requests' indices, shortest prompts first, that may share batches: all, or those `alike` in length only."""
    order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt), len(requests[i].uniforms)))
    for _, group in groupby(order, key=lambda i: len(requests[i].prompt) if alike else 0):
        yield list(group)


def _rectangle(rows: Sequence[Sequence[float]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *([0.0] * (width - len(row)))] for row in rows], dtype=torch.float64)
