"""Sampling from a model with a plain key/value cache: rows that are done leave the batch, and new ones come in.

It knows nothing of stages, seeds or self-checks: it is given requests and hands back completions as they are done.
"""

import inspect
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignment.batching import batches
from alignment.config import SamplingConfig
from alignment.conventions import Conventions
from alignment.device import is_exact
from alignment.models import using
from alignment.sampling.cache import AxisCache
from alignment.sampling.choice import draw
from alignment.sampling.engine import Completion, Request
from alignment.sampling.prompts import distinct, pad_left
from alignment.sampling.stops import Stops

LOOK_EVERY = 16
"""Not measured on a GPU."""
STOPS_EVERY = 8
"""Steps between two looks for stop texts."""
PART_DONE = 16
"""One row in so many has to be done before others are moved into their places."""
PART_FREE = 4
"""One row in so many has to be free before new ones come in."""

Deliver = Callable[[list[tuple[int, Completion]], bool, bool], None]


def looks_every(device: torch.device) -> int:
    """Steps between two looks at which rows are done: a look costs a CPU nothing, and waits for any other device."""
    return 1 if device.type == "cpu" else LOOK_EVERY


class Running:
    """Up to `rows` rows on one time axis, each with its prompt's cache, its random numbers and its tokens.

    What has one entry per row and token (uniforms, tokens, log-probs) lies in a ring of `longest` slots by the step
    that it belongs to. A row has drawn fewer tokens than that, so the ring never needs to be moved.
    """

    def __init__(
        self,
        model: Any,
        filled: Any,
        rows: int,
        longest: int,
        config: SamplingConfig,
        conventions: Conventions,
        stops: Stops | None,
        name: str,
    ) -> None:
        """`filled` is a plain cache of the model, to be built like; no row has more than `longest` tokens in all."""
        self.model, self.config, self.conventions, self.stops, self.name = model, config, conventions, stops, name
        self.rows, self.longest = rows, longest
        self.device = next(model.parameters()).device
        self.places_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.cache = AxisCache(filled, rows, longest + longest // 4 + 16)
        self.axis = self.cache.axis
        self.ends = torch.tensor(conventions.ends, device=self.device)
        self.exact = is_exact(model)
        self.time = 0
        self.looked_for_stops = 0
        self.requests: list[int] = []
        self.begins: list[int] = []
        self.born: list[int] = []
        self.begin, self.deadline = (torch.zeros(rows, dtype=torch.long, device=self.device) for _ in range(2))
        self.token, self.count = (torch.zeros(rows, dtype=torch.long, device=self.device) for _ in range(2))
        self.alive = torch.zeros(rows, dtype=torch.bool, device=self.device)
        ring = (longest, rows)
        self.uniforms = torch.zeros(ring, dtype=torch.float64, device=self.device)
        self.tokens = torch.zeros(ring, dtype=torch.long, device=self.device)
        self.logprobs = torch.zeros(ring, dtype=torch.float64, device=self.device)
        self.padded = self.refilled = False

    def run(self, requests: Sequence[Request], order: Sequence[int], prefill_tokens: int, deliver: Deliver) -> None:
        """Draw the requests, taken in in the `order` of their places, at most `prefill_tokens` of prompts at once.

        `deliver` gets those that are done, whether any was padded, and whether any had come in beside others.
        """
        waiting = deque(order)
        every = looks_every(self.device)
        while waiting or self.axis.rows:
            rows, left = self.axis.rows, self._steps_left()
            dead = rows - int(self.alive[:rows].sum())
            for_stops = self.stops is not None and self.time - self.looked_for_stops >= STOPS_EVERY
            if for_stops or (dead and (dead * PART_DONE >= rows or left == 0)):
                padded = self.padded
                deliver(self._retire(every_row=for_stops), padded, self.refilled)
                continue
            comes = self._coming(requests, waiting)
            if comes:
                self._take_in([(place, requests[place]) for place in comes], prefill_tokens)
                continue
            for _ in range(min(every, self._steps_left()) if self.axis.rows else 0):
                self._step()

    def _steps_left(self) -> int:
        """Steps until the longest row has all tokens that any may have: then it is done, and has to leave."""
        return self.longest - 1 - (self.axis.now - self.axis.start)

    def _coming(self, requests: Sequence[Request], waiting: deque[int]) -> list[int]:
        """Those that come in now: as many as there is room for, once there is enough of it.

        A model that counts its positions by itself has only prompts of one length at a time, from the same step on.
        """
        rows = self.axis.rows
        room = self.rows - rows
        if not waiting or (rows and (room * PART_FREE < self.rows or not self.places_positions)):
            return []
        width = len(requests[waiting[0]].prompt)
        found: list[int] = []
        while waiting and len(found) < room:
            if not self.places_positions and len(requests[waiting[0]].prompt) != width:
                break
            found.append(waiting.popleft())
        return found

    def _take_in(self, coming: Sequence[tuple[int, Request]], tokens: int) -> None:
        """Run the distinct prompts once, give each request a row with its prompt's cache, and draw its first token."""
        prompts, of_request = distinct([request.prompt for _, request in coming])
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        if not self.axis.rows:
            self.time = self.looked_for_stops = 0
            self.axis.now = self.axis.start = width
        self.refilled |= self.axis.rows > 0
        used = max(width, self.axis.now - self.axis.start)
        if self.axis.now < width:
            self._move(used)
        for batch in batches(lengths, tokens):
            row_of = {prompt: row for row, prompt in enumerate(batch)}
            new = [
                (place, request, row_of[prompt])
                for (place, request), prompt in zip(coming, of_request, strict=True)
                if prompt in row_of
            ]
            self._begin([prompts[prompt] for prompt in batch], new)
        self._span()

    def _begin(self, prompts: Sequence[Any], new: Sequence[tuple[int, Request, int]]) -> None:
        ids, mask = pad_left(prompts, self.conventions.pad_id)
        ids, mask = ids.to(self.device), mask.to(self.device)
        extra: dict[str, Any] = {} if bool(mask.all()) else {"attention_mask": mask.long()}
        if self.places_positions:
            positions = (mask.long().cumsum(1) - 1).clamp(min=0)
            extra["position_ids"] = positions + self.conventions.first_position
        with using(self.name, "sampling"):
            out = self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **extra)
        of_row = torch.tensor([row for _, _, row in new], device=self.device)
        first, time = self.axis.rows, self.time
        rows = slice(first, first + len(new))
        self.cache.put(out.past_key_values, of_row)
        begins = [self.axis.now - len(request.prompt) for _, request, _ in new]
        self.requests += [place for place, _, _ in new]
        self.begins += begins
        self.born += [time] * len(new)
        self.begin[rows] = torch.tensor(begins, device=self.device)
        self.deadline[rows] = torch.tensor([time + len(request.uniforms) for _, request, _ in new], device=self.device)
        self.count[rows] = 0
        self.alive[rows] = True
        longest = max(len(request.uniforms) for _, request, _ in new)
        uniforms = np.zeros((longest, len(new)))
        for column, (_, request, _) in enumerate(new):
            uniforms[: len(request.uniforms), column] = request.uniforms
        slots = (time + torch.arange(longest, device=self.device)) % self.longest
        self.uniforms[slots, rows] = torch.from_numpy(uniforms).to(self.device)
        self._choose(out.logits[:, -1].float().index_select(0, of_row), rows, time)

    def _step(self) -> None:
        """One token more for every row."""
        axis = self.axis
        if axis.now == self.cache.columns:
            self._move(axis.now - axis.start)
        rows = axis.rows
        extra: dict[str, Any] = {}
        if self.padded:
            columns = torch.arange(axis.start, axis.now + 1, device=self.device)
            extra["attention_mask"] = (columns >= self.begin[:rows, None]).long()
        if self.places_positions:
            extra["position_ids"] = (axis.now + self.conventions.first_position - self.begin[:rows])[:, None]
        with using(self.name, "sampling"):
            out = self.model(
                input_ids=self.token[:rows, None],
                past_key_values=self.cache.cache,
                use_cache=True,
                logits_to_keep=1,
                **extra,
            )
        axis.now += 1
        self.time += 1
        self._choose(out.logits[:, -1].float(), slice(0, rows), self.time)

    def _choose(self, logits: Tensor, rows: slice, time: int) -> None:
        slot = time % self.longest
        token, logprob = draw(logits, self.uniforms[slot, rows], self.config)
        self.token[rows] = token
        self.tokens[slot, rows] = token
        self.logprobs[slot, rows] = logprob
        alive = self.alive[rows]
        self.count[rows] += alive
        self.alive[rows] = alive & ~torch.isin(token, self.ends) & (time + 1 < self.deadline[rows])

    def _retire(self, *, every_row: bool) -> list[tuple[int, Completion]]:
        """Take out the rows that are done; `every_row` is looked at for stop texts, or those alone."""
        rows = self.axis.rows
        alive = self.alive[:rows].tolist()
        counts = self.count[:rows].tolist()
        looked = [row for row in range(rows) if every_row or not alive[row]]
        drawn = dict(zip(looked, self._drawn(looked, counts), strict=True))
        kept = self._stopped({row: ids for row, (ids, _) in drawn.items()})
        if every_row:
            self.looked_for_stops = self.time
        gone = [row for row in looked if not alive[row] or row in kept]
        found = []
        for row in gone:
            ids, logprobs = drawn[row]
            done = row in kept or bool(ids and ids[-1] in self.conventions.ends)
            ids = ids[: kept.get(row)]
            found.append((self.requests[row], Completion(ids, done, sum(logprobs[: len(ids)]), self.exact)))
        self._close(gone)
        return found

    def _drawn(self, rows: Sequence[int], counts: Sequence[int]) -> list[tuple[list[int], list[float]]]:
        """The tokens of some rows and their log-probs, in order."""
        where = torch.tensor(list(rows), dtype=torch.long, device=self.device)
        tokens, logprobs = (each.index_select(1, where).T.tolist() for each in (self.tokens, self.logprobs))
        found = []
        for row, ids, values in zip(rows, tokens, logprobs, strict=True):
            slots = [(self.born[row] + i) % self.longest for i in range(counts[row])]
            found.append(([ids[slot] for slot in slots], [values[slot] for slot in slots]))
        return found

    def _stopped(self, drawn: dict[int, list[int]]) -> dict[int, int]:
        """Of the rows' tokens so far, those that came to a stop text since the last look: how many tokens they keep."""
        if self.stops is None or not drawn:
            return {}
        grown = self.time - self.looked_for_stops + 1
        ends = self.conventions.ends  # a token that ends a text counts before any stop that it would complete
        texts = [ids[:-1] if ids and ids[-1] in ends else ids for ids in drawn.values()]
        found = zip(drawn, self.stops.kept(texts, grown), strict=True)
        return {row: kept for row, kept in found if kept is not None}

    def _close(self, gone: Sequence[int]) -> None:
        """Move the last rows into the places of those that are gone."""
        rows = self.axis.rows - len(gone)
        into = [row for row in gone if row < rows]
        out = set(gone)
        moved = [row for row in range(rows, self.axis.rows) if row not in out]
        self.cache.keep(moved, into, rows)
        if moved:
            source, target = (torch.tensor(places, device=self.device) for places in (moved, into))
            for state in (self.begin, self.deadline, self.token, self.count, self.alive):
                state[target] = state[source]
            for ring in (self.uniforms, self.tokens, self.logprobs):
                ring[:, target] = ring[:, source]
        for of_row in (self.requests, self.begins, self.born):
            for source_row, target_row in zip(moved, into, strict=True):
                of_row[target_row] = of_row[source_row]
            del of_row[rows:]
        self._span()

    def _span(self) -> None:
        """The axis begins where the first row does."""
        if self.begins:
            self.axis.start = min(self.begins)
            self.padded = self.axis.start != max(self.begins)

    def _move(self, now: int) -> None:
        by = self.cache.move(now)
        self.begins = [begin + by for begin in self.begins]
        self.begin += by
