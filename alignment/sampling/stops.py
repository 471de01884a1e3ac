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

    def kept(self, completions: Sequence[Sequence[int]], grown: int = 1) -> list[int | None]:
        """For each completion that has grown by at most so many tokens: how many to keep, None where it goes on.

        The answer is that of asking after every token: what came after the first stop text does not count.
        """
        tails = self.decode([ids[-(self.tail + grown - 1) :] for ids in completions])
        return [
            self._first(ids, grown) if self._stop_in(text) else None
            for ids, text in zip(completions, tails, strict=True)
        ]

    def _stop_in(self, text: str) -> bool:
        return any(stop in text for stop in self.stops)

    def _first(self, ids: Sequence[int], grown: int) -> int | None:
        """The answer for the first of the last lengths at which there is a stop text."""
        for length in range(max(0, len(ids) - grown) + 1, len(ids) + 1):
            head = ids[:length]
            (text,) = self.decode([head[-self.tail :]])
            kept = self._kept(head) if self._stop_in(text) else None
            if kept is not None:
                return kept
        return None

    def _kept(self, ids: Sequence[int]) -> int | None:
        (text,) = self.decode([ids])
        begins = min((found for stop in self.stops if (found := text.find(stop)) >= 0), default=None)
        if begins is None:
            return None
        before = self.decode([ids[:count] for count in range(len(ids))])
        return max(count for count, part in enumerate(before) if len(part) <= begins and text.startswith(part))
