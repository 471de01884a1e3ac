"""From candidates to prompts: without repeats, split so that none is on both sides, and as many as are asked for."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from alignment.config import PromptsConfig
from alignment.data.prompts.ids import Split, hash_ids, split
from alignment.data.prompts.source import Cut, Prompts, Rows
from alignment.errors import DataError
from alignment.rows import Text

BATCH = 1_024


@dataclass(frozen=True)
class Candidate:
    """The prompt of one row, in token ids; `Cut` says what the rest is."""

    ids: tuple[int, ...]
    messages: str = ""
    columns: str = ""


Make = Callable[[Sequence[Text]], Iterable[Candidate | str]]
"""For each row its candidate, or the reason for which it gives no prompt."""


def select(
    rows: Rows, make: Make, config: PromptsConfig, excluded: Collection[str], *, way_out: str = "", where: str = ""
) -> Prompts:
    """Make prompts of the rows, in order, until both sides are full.

    Of rows of their own for the evaluation all may be held out, and no other is; a prompt that both have is held out.
    Prompts whose ids are `excluded` are on neither side: they were trained on, whatever `eval_fraction` is by now.
    Raises DataError if there is none to train on, unless some were excluded, or too few are held out; it says `way_out`
    where rows were counted under the reason `where`, or always where that is empty.
    """
    taken = _Taken(config, set(excluded))
    if rows.held_out is not None:
        taken.go_through(rows.held_out(), make, "eval")
    taken.go_through(rows.all(), make, "train" if rows.held_out is not None else None)
    taken.require_enough(way_out if not where or taken.counts[where] else "")
    return Prompts(taken.sides["train"], taken.sides["eval"], {"train": 0} | dict(taken.counts))


class _Taken:
    """The prompts taken so far, and what became of each row."""

    def __init__(self, config: PromptsConfig, excluded: set[str]) -> None:
        self.config = config
        self.excluded = excluded
        self.sides: dict[Split, list[Cut]] = {"train": [], "eval": []}
        self.room: dict[Split, int] = {"train": config.count, "eval": config.eval_count}
        self.counts: Counter[str] = Counter()
        self.seen: dict[str, Split] = {}
        self.rows = 0

    def go_through(self, rows: Sequence[Text], make: Make, side: Split | None) -> None:
        """Take what there is room for, all for one side or each for that of its id; only what may be needed is read."""
        self.rows += len(rows)
        sides = self.sides if side is None else [side]
        for start in range(0, len(rows), BATCH):
            if all(len(self.sides[each]) >= self.room[each] for each in sides):
                self.counts["not_needed"] += len(rows) - start
                return
            for found in make(rows[start : start + BATCH]):
                self.counts[found if isinstance(found, str) else self._take(found, side)] += 1

    def _take(self, found: Candidate, side: Split | None) -> str:
        """What becomes of a candidate."""
        prompt_id = hash_ids(found.ids)
        side = side or split(prompt_id, self.config.eval_fraction)
        if prompt_id in self.seen:
            return "repeats" if self.seen[prompt_id] == side else "held_out_too"
        if prompt_id in self.excluded:
            self.seen[prompt_id] = side
            return "used_before"
        if len(self.sides[side]) >= self.room[side]:
            return "not_needed"
        self.seen[prompt_id] = side
        self.sides[side].append(Cut(prompt_id, found.ids, side, found.messages, found.columns))
        return side

    def require_enough(self, way_out: str) -> None:
        """Raise DataError where a side has too few prompts."""
        config = self.config
        needed: dict[Split, int] = {
            "train": 0 if self.counts["used_before"] else 1,
            "eval": min(config.min_eval, config.eval_count),
        }
        for side, prompts in self.sides.items():
            if len(prompts) < needed[side]:
                more = "lower" if side == "train" else f"lower prompts.min_eval = {config.min_eval}, raise"
                raise DataError(
                    f"prompts: {len(prompts) or 'none'} left for the {side} side of {self.rows} texts "
                    f"({_told(self.counts)}), which needs {needed[side]}; {way_out}{more} "
                    f"prompts.eval_fraction = {config.eval_fraction:g}, or give more texts"
                )


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(counts.items())) or "no text at all"
