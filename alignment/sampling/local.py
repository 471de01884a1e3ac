"""The engine of this project: which way a model is sampled, in what order, and the check of what comes out."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch

from alignment.activations import one_kernel
from alignment.batching import (
    CPU_BYTES,
    CPU_ROWS,
    PREFILL_TOKENS,
    batch_tokens,
    does_not_fit,
    in_batches,
    is_out_of_memory,
)
from alignment.config import SamplingConfig
from alignment.conventions import Conventions
from alignment.device import is_exact
from alignment.errors import ModelError, SelfCheckError
from alignment.layout import Tokens
from alignment.models import Loaded, using
from alignment.sampling import plain
from alignment.sampling.cache import bytes_per_token, is_plain
from alignment.sampling.continuous import Running
from alignment.sampling.engine import Completion, Request, engine
from alignment.sampling.stops import Stops
from alignment.sampling.weights import column_order
from alignment.selfcheck import SelfCheck, plain_logprob

logger = logging.getLogger(__name__)

WAY_OUT = (
    "set sampling.cache to false, which is slow and right where only the cache is at fault, or take another model: "
    "it may look ahead, or number its positions in a way of its own"
)

PLAIN_TOKENS = 16_384
"""Of a plain batch, whose cache is not known before."""
CHECKED_TOGETHER = 8
"""Completions that are there before the first of them are checked."""

FITTING: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""How many tokens at once fit, for models of which more did not."""

Alone = Callable[[Tokens, Tokens], float]
"""The log-prob of a prompt's completion by the model as it is, one sequence at a time."""

BATCHED: WeakSet[Any] = WeakSet()
"""Models that one time axis does not suit: each is told of once, and is sampled in plain batches from then on."""


@engine("local", exact_logprobs=True)
def local(
    loaded: Loaded,
    requests: Sequence[Request],
    config: SamplingConfig,
    progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """torch and transformers on this machine. Raises as `generate` does."""
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
    """Draw every request; returned in the given order.

    A model whose cache is plain keys and values is sampled on one time axis, where rows come and go; any other, or one
    that fails there, in plain batches. Raises SelfCheckError where log-probs are not those of the sequences one by one
    there either, and ModelError where the model cannot be run; `name` is how these name it.
    """
    conventions.require_known([request.prompt for request in requests], name)
    tokens = sum(len(request.uniforms) for request in requests)
    with one_kernel(model) as own_activations, column_order(model, tokens) as own_weights:

        def alone(prompt: Tokens, completion: Tokens) -> float:
            with own_activations(), own_weights():
                return plain_logprob(model, prompt, completion)

        found = _generate(partial(_Work, model, requests, config, conventions, stops, name, progress, alone))
    return [found[place] for place in range(len(requests))]


def _generate(begin: "Callable[[], _Work]") -> dict[int, Completion]:
    work = begin()
    filled = _filled(work.model, work.requests, work.config, work.name)
    if filled is not None:
        try:
            _on_one_axis(work, filled)
        except (ModelError, SelfCheckError) as error:
            if is_out_of_memory(error):
                raise
            _tell(work.model, work.name, error)
            work = begin()
    if len(work.found) < len(work.requests):
        _in_batches(work)
    return work.found


class _Work:
    """The requests of one call, what is done of them, and the check of it."""

    def __init__(
        self,
        model: Any,
        requests: Sequence[Request],
        config: SamplingConfig,
        conventions: Conventions,
        stops: Stops | None,
        name: str,
        progress: Callable[[int, int], None] | None,
        alone: Alone,
    ) -> None:
        self.alone = alone
        self.model, self.requests, self.config, self.conventions = model, requests, config, conventions
        self.stops, self.name, self.progress = stops, name, progress
        self.check = SelfCheck("sampling", name, model, WAY_OUT)
        self.checked_together = CHECKED_TOGETHER
        exact = is_exact(model)
        self.found = {i: Completion([], False, 0.0, exact) for i, asked in enumerate(requests) if not asked.uniforms}
        self._unchecked: list[int] = []
        self._padded = False

    @property
    def order(self) -> list[int]:
        """What is left to draw: of like lengths in all, shortest prompts first, samples of one prompt together."""
        return sorted((place for place in range(len(self.requests)) if place not in self.found), key=self._like)

    def _like(self, place: int) -> tuple[int, int, list[int], int]:
        asked = self.requests[place]
        return self.magnitude(place), len(asked.prompt), list(asked.prompt), len(asked.uniforms)

    def length(self, place: int) -> int:
        """The most tokens of a request, with its prompt."""
        return len(self.requests[place].prompt) + len(self.requests[place].uniforms)

    def magnitude(self, place: int) -> int:
        """Requests of one magnitude are at most twice as long as each other."""
        return self.length(place).bit_length()

    def deliver(self, drawn: list[tuple[int, Completion]], padded: bool, refilled: bool) -> None:
        """Take what is done. Raises SelfCheckError where some of it is not what a plain forward pass gives.

        Beside the first of them, the last are checked where some came in beside others.
        """
        self.found.update(drawn)
        if not all(math.isfinite(completion.logprob) for _, completion in drawn):
            raise SelfCheckError(
                f"{self.name}: sampling gives log-probs that are no numbers; check its weights, or precision"
            )
        self._unchecked += [place for place, _ in drawn]
        self._padded |= padded
        is_last = len(self.found) == len(self.requests)
        if is_last and refilled:
            self.check.renew()
        if len(self._unchecked) >= self.checked_together or is_last:
            self._checked()
        if drawn and self.progress is not None:
            self.progress(len(self.found), len(self.requests))

    def _checked(self) -> None:
        rows = [self.found[place] for place in self._unchecked]
        self.check.logprobs(
            [completion.logprob for completion in rows],
            [len(completion.ids) for completion in rows],
            lambda row: self.alone(self.requests[self._unchecked[row]].prompt, rows[row].ids),
            padded=self._padded,
        )
        self._unchecked, self._padded = [], False


def _filled(model: Any, requests: Sequence[Request], config: SamplingConfig, name: str) -> Any:
    """The model's cache of the first prompt, where the model is to be sampled on one time axis, else None."""
    if not requests or not config.cache or model in BATCHED or model in plain.UNSPLIT:
        return None
    if not plain.keeps_cache(model):
        return _told(model, name)
    ids = torch.tensor([list(requests[0].prompt)], device=next(model.parameters()).device)
    try:
        with using(name, "sampling"), torch.inference_mode():
            cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
    except ModelError:  # where the model itself fails, the plain batches say so
        return None
    return cache if is_plain(cache) else _told(model, name)


def _told(model: Any, name: str) -> None:
    BATCHED.add(model)
    logger.info("%s: its cache is not one of keys and values alone, so it is sampled in plain batches", name)


@torch.inference_mode()
def _on_one_axis(work: _Work, filled: Any) -> None:
    """All requests, those of one magnitude together; half as many rows at once where the memory holds no more."""
    order = work.order
    tokens = _tokens(work.model, work.config, filled, max(map(work.length, order), default=0))
    for places in _together(work, order, tokens):
        longest = max(map(work.length, places))
        while waiting := [place for place in places if place not in work.found]:
            rows = max(1, min(tokens // longest, len(waiting)))
            if _drawn(work, filled, waiting, rows, longest, min(PREFILL_TOKENS, tokens)):
                continue
            torch.cuda.empty_cache()
            tokens = FITTING[work.model] = rows // 2 * longest
            logger.warning(
                "%s: %d tokens at once do not fit; sampling.batch_tokens is %d from here on",
                work.name,
                rows * longest,
                tokens,
            )


def _together(work: _Work, order: Sequence[int], tokens: int) -> list[list[int]]:
    """Those of one magnitude, shortest first, or all where so many tokens hold them: groups gain nothing then."""
    if len(order) * max(map(work.length, order), default=0) <= tokens:
        return [list(order)] if order else []
    return [list(group) for _, group in groupby(order, key=work.magnitude)]


def _drawn(work: _Work, filled: Any, places: Sequence[int], rows: int, longest: int, prefill: int) -> bool:
    """Draw requests, so many rows at once, and say whether the memory held them; what was done before is kept.

    It is a function of its own so that a cache that did not fit is gone when a smaller one is made.
    """
    try:
        running = Running(work.model, filled, rows, longest, work.config, work.conventions, work.stops, work.name)
        running.run(work.requests, places, prefill, work.deliver)
    except (ModelError, torch.OutOfMemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if rows == 1:
            raise does_not_fit(work.name, longest) from error
        return False
    return True


def _tokens(model: Any, config: SamplingConfig, filled: Any, longest: int) -> int:
    """How many tokens rows may have together: as given, or as fit with their keys and values and a row's logits."""
    if next(model.parameters()).device.type == "cpu":
        found = config.batch_tokens or min(CPU_ROWS * longest, CPU_BYTES // bytes_per_token(filled))
    else:
        logits = 3 * 4 * int(getattr(model.config.get_text_config(), "vocab_size", 0)) // max(1, longest)
        found = batch_tokens(model, config.batch_tokens, bytes_per_token(filled) * 3 // 2 + logits)
    return min(found, FITTING.get(model, found))


def _in_batches(work: _Work) -> None:
    """What is left, in batches of like lengths that are drawn to their end."""
    work.checked_together = 1  # each batch by itself
    order = work.order
    left = [work.requests[place] for place in order]

    def draw(batch: Sequence[int]) -> None:
        asked = [left[i] for i in batch]
        drawn = plain.draw_batch(work.model, asked, work.config, work.conventions, work.stops, work.name)
        padded = len({len(each.prompt) for each in asked}) > 1
        work.deliver(list(zip([order[i] for i in batch], drawn, strict=True)), padded, False)

    for group in plain.together(left, alike=not plain.bears_padding(work.model)):
        in_batches(
            [work.config.total_tokens] * len(group),
            work.config.batch_tokens or PLAIN_TOKENS,
            lambda rows, group=group: draw([group[row] for row in rows]),  # type: ignore[misc]
            name=work.name,
            field="sampling.batch_tokens",
        )


def _tell(model: Any, name: str, error: Exception) -> None:
    BATCHED.add(model)
    logger.warning(
        "%s: it cannot be sampled on one time axis (%s); from here on it is sampled in plain batches, which is slower",
        name,
        " ".join(str(error).split())[:240],
    )
