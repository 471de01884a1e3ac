"""Texts that end a completion: where in its tokens one of them begins."""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[Sequence[int]]], Sequence[str]]


class Stops:
    """Finds stop texts in completions by their decoded text, special tokens left out.

    A token in which a stop text begins goes whole: its log-prob belongs to what is trimmed, so it cannot be kept in
    part.
    """

    def __init__(self, stops: Sequence[str], decode: Decode) -> None:
        """`decode` gives the texts of lists of token ids."""
        self.stops = stops
        self.decode = decode
        self.tail = max(len(stop.encode()) for stop in stops) + 8  # tokens: each has a byte or more, but special ones

    def kept(self, completions: Sequence[Sequence[int]]) -> list[int | None]:
        """For each completion that has just grown by a token: how many tokens to keep, None where it goes on."""
        tails = self.decode([ids[-self.tail :] for ids in completions])
        return [
            self._kept(ids) if any(stop in text for stop in self.stops) else None
            for ids, text in zip(completions, tails, strict=True)
        ]

    def _kept(self, ids: Sequence[int]) -> int | None:
        (text,) = self.decode([ids])
        begins = min((found for stop in self.stops if (found := text.find(stop)) >= 0), default=None)
        if begins is None:
            return None
        before = self.decode([ids[:count] for count in range(len(ids))])
        return max(count for count, part in enumerate(before) if len(part) <= begins and text.startswith(part))
