"""Sampling from a causal model: one prefill a prompt, a cached step a token, and each sample's own random numbers."""

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from alignment.config import SamplingConfig
from alignment.conventions import Conventions
from alignment.errors import ModelError, SelfCheckError
from alignment.logprobs import Tokens
from alignment.models import Loaded, using
from alignment.sampling.engine import Completion, Request, engine
from alignment.sampling.stops import Stops
from alignment.selfcheck import SelfCheck, plain_logprob

logger = logging.getLogger(__name__)

WAY_OUT = (
    "set sampling.cache to false, which is slow and right where only the cache is at fault, or take another model: "
    "it may look ahead, or number its positions in a way of its own"
)

UNSPLIT: WeakSet[Any] = WeakSet()
"""Models whose cache has failed: each is told of once, and goes without from then on."""


@engine("local")
def local(
    loaded: Loaded,
    requests: Sequence[Request],
    config: SamplingConfig,
    progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """The engine of this project: torch and transformers on this machine. Raises as `generate` does."""
    stops = Stops(config.stop, loaded.texts) if config.stop else None
    return generate(
        loaded.model, requests, config, loaded.conventions, stops=stops, name=loaded.name, progress=progress
    )


def generate(
    model: Any,
    requests: Sequence[Request],
    config: SamplingConfig,
    conventions: Conventions,
    *,
    stops: Stops | None = None,
    name: str = "the model",
    progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """Draw every request, in batches of prompts with like lengths; returned in the given order.

    Raises SelfCheckError where the log-probs of a batch are not those of its sequences one by one, and ModelError where
    the model cannot be run; `name` is how these name it.
    """
    conventions.require_known([request.prompt for request in requests], name)
    check = SelfCheck("sampling", name, model, WAY_OUT)
    found: dict[int, Completion] = {}
    for chunk in _batches(
        requests, max(1, (config.batch_tokens or 16_384) // config.total_tokens), alike=not _bears_padding(model)
    ):
        batch = [requests[i] for i in chunk]
        drawn = _generate_batch(model, batch, config, conventions, stops, name)
        found.update(zip(chunk, drawn, strict=True))
        check.logprobs(
            [completion.logprob for completion in drawn],
            [len(completion.ids) for completion in drawn],
            partial(_alone, model, batch, drawn),
            padded=len({len(request.prompt) for request in batch}) > 1,
        )
        if progress is not None:
            progress(len(found), len(requests))
    return [found[i] for i in range(len(requests))]


@torch.inference_mode()
def _generate_batch(
    model: Any,
    requests: Sequence[Request],
    config: SamplingConfig,
    conventions: Conventions,
    stops: Stops | None,
    name: str,
) -> list[Completion]:
    device = next(model.parameters()).device
    pad_id, ends = conventions.pad_id, torch.tensor(conventions.ends, device=device)
    prompts, of_request = _distinct([request.prompt for request in requests])
    ids, mask = _pad_left(prompts, pad_id)
    ids, mask, of_request = ids.to(device), mask.to(device), of_request.to(device)
    room = torch.tensor([len(request.uniforms) for request in requests], device=device)
    uniforms = _rectangle([request.uniforms for request in requests]).to(device)

    step = _Stepper(model, mask, conventions.first_position, name, cached=config.cache)
    logits = step.prefill(ids, of_request)
    steps = int(room.max())
    tokens = torch.full((len(requests), steps), pad_id, dtype=torch.long, device=device)
    logprobs = torch.zeros((len(requests), steps), dtype=torch.float32, device=device)
    lengths = torch.zeros(len(requests), dtype=torch.long, device=device)
    alive = torch.ones(len(requests), dtype=torch.bool, device=device)
    finished = ~alive
    for position in range(steps):
        alive = alive & (position < room)
        token = choose(logits, uniforms[:, position], config)
        tokens[:, position] = torch.where(alive, token, pad_id)
        logprobs[:, position] = torch.gather(logits.log_softmax(-1), 1, token[:, None])[:, 0] * alive
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
    sums = logprobs.double().sum(1).tolist()
    exact = next(model.parameters()).dtype == torch.float32
    if not all(map(math.isfinite, sums)):
        raise SelfCheckError(f"{name}: sampling gives log-probs that are no numbers; check its weights, or precision")
    return [
        Completion(row[:length], done, logprob, exact)
        for row, length, done, logprob in zip(tokens.tolist(), lengths.tolist(), finished.tolist(), sums, strict=True)
    ]


def _stopped(stops: Stops, tokens: Tensor, alive: Tensor) -> list[tuple[int, int]]:
    """The rows of tokens [B, T] that have just come to a stop text, each with how many of its tokens are kept."""
    rows = alive.nonzero()[:, 0].tolist()
    found = stops.kept(tokens[rows].tolist()) if rows else []
    return [(row, kept) for row, kept in zip(rows, found, strict=True) if kept is not None]


def choose(logits: Tensor, uniforms: Tensor, config: SamplingConfig) -> Tensor:
    """Invert the distribution function of each row: logits [B, V] and uniforms [B] in [0, 1) -> token ids [B].

    Temperature, then top-k, then top-p (Holtzman et al. 2020), as in every common sampler.
    """
    scaled = logits / config.temperature
    if config.top_k and config.top_k < scaled.shape[-1]:
        scaled = scaled.masked_fill(scaled < scaled.topk(config.top_k).values[:, -1:], -torch.inf)
    probabilities = scaled.softmax(-1)
    if config.top_p < 1:
        ranked, order = probabilities.sort(descending=True)
        beyond = ranked.cumsum(-1) - ranked >= config.top_p
        probabilities = probabilities.masked_fill(beyond.gather(-1, order.argsort(-1)), 0)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    at = (uniforms.double() * cumulative[:, -1])[:, None]
    return torch.searchsorted(cumulative, at, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)


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


def _alone(model: Any, batch: Sequence[Request], drawn: Sequence[Completion], row: int) -> float:
    return plain_logprob(model, batch[row].prompt, drawn[row].ids)


def _cache_name(model: Any) -> str:
    """What a model calls the cache that it takes and hands out; empty where it has none."""
    takes = inspect.signature(model.forward).parameters
    return next((name for name in ("past_key_values", "cache_params") if name in takes), "")


def _bears_padding(model: Any) -> bool:
    """Whether prompts of several lengths may share a batch.

    Padding on the left would run through a recurrent state, and shift the positions that a model counts by itself.
    """
    takes = inspect.signature(model.forward).parameters
    recurrent = getattr(model, "_is_stateful", False)
    return _cache_name(model) == "past_key_values" and "position_ids" in takes and not recurrent


def _batches(requests: Sequence[Request], size: int, *, alike: bool) -> Iterator[list[int]]:
    """The requests' indices, shortest prompts first, at most `size` at a time; `alike`: of one length only."""
    order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt), len(requests[i].uniforms)))
    for _, group in groupby(order, key=lambda i: len(requests[i].prompt) if alike else 0):
        found = list(group)
        for start in range(0, len(found), size):
            yield found[start : start + size]


def _distinct(prompts: Sequence[Tokens]) -> tuple[list[Tokens], Tensor]:
    """The distinct prompts, and for each request the row of its prompt."""
    rows: dict[tuple[int, ...], int] = {}
    of_request = [rows.setdefault(tuple(prompt), len(rows)) for prompt in prompts]
    return list(rows), torch.tensor(of_request)


def _pad_left(prompts: Sequence[Tokens], pad_id: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[False] * (width - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    return ids, mask


def _rectangle(rows: Sequence[Sequence[float]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *([0.0] * (width - len(row)))] for row in rows], dtype=torch.float64)
