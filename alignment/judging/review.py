"""What people read and rate of an evaluation: a prompt with one text of each model, whose authors are not named."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alignment.judging.evaluated import SIDES, Evaluated
from alignment.rows import JUDGED, JUDGED_BY, PART

LETTERS = ("A", "B")
PREVIEW = 1_000
"""Characters of a text that MLflow's lists and its page for reviews show, its own limit."""
_CUT = "…"


@dataclass(frozen=True)
class Comparison:
    """One held-out prompt with the first sample of each model; `figures` are of both, finite numbers by their names."""

    prompt_id: str
    prompt: str
    messages: str
    base: str
    aligned: str
    figures: dict[str, float]

    @property
    def shown_prompt(self) -> str:
        """What people read: of a chat its last turn."""
        return str(json.loads(self.messages)[-1].get("content") or "") if self.messages else self.prompt

    def letter_of_aligned(self, run_id: str) -> str:
        """Under which letter the aligned model's text is shown: drawn for each prompt of a run, and always the same."""
        return LETTERS[hashlib.sha256(f"{run_id} {self.prompt_id}".encode()).digest()[0] % 2]

    def texts(self, run_id: str) -> dict[str, str]:
        """Both texts by their letters, in the letters' order."""
        first, second = (
            (self.aligned, self.base) if self.letter_of_aligned(run_id) == LETTERS[0] else (self.base, self.aligned)
        )
        return dict(zip(LETTERS, (first, second), strict=True))


def comparisons(found: Evaluated, most: int) -> list[Comparison]:
    """The first sample of both models on the first `most` prompts whose texts are recorded.

    Figures are `<name>_base` and `<name>_aligned` of each score, with `<name>_gain`; the lengths in tokens; and
    `log_ratio`, log p under the aligned model minus log p under the base of the aligned model's own text, in nats,
    whose mean estimates the KL.
    """
    firsts = {side: {row["prompt_id"]: row for row in _firsts(found, side)} for side in SIDES}
    base, aligned = (firsts[side] for side in SIDES)
    shared = [prompt for prompt in base if prompt in aligned][:most]
    return [
        Comparison(
            prompt_id=prompt,
            prompt=str(base[prompt]["prompt"]),
            messages=str(base[prompt]["messages"] or ""),
            base=str(base[prompt]["completion"]),
            aligned=str(aligned[prompt]["completion"]),
            figures=_figures(base[prompt], aligned[prompt]),
        )
        for prompt in shared
    ]


def preview(texts: dict[str, str]) -> str:
    """Both texts under their letters, in Markdown, cut to what MLflow's page shows."""
    frame = sum(len(_titled(letter, "")) for letter in texts) + len("\n\n") * (len(texts) - 1)
    room = (PREVIEW - frame) // len(texts)
    return "\n\n".join(_titled(letter, cut(text.strip(), room)) for letter, text in texts.items())


def cut(text: str, most: int = PREVIEW) -> str:
    """The text, or as much of it as fits, with a sign that it goes on."""
    return text if len(text) <= most else text[: most - len(_CUT)] + _CUT


def _titled(letter: str, text: str) -> str:
    return f"**{letter}**\n\n{text}"


def _firsts(found: Evaluated, side: str) -> Iterator[dict[str, Any]]:
    for batch in found.side(side).to_batches():
        yield from (row for row in batch.to_pylist() if row["index"] == 0 and row["completion"] is not None)


def _figures(base: dict[str, Any], aligned: dict[str, Any]) -> dict[str, float]:
    values: dict[str, float | None] = {}
    for column in aligned:
        if column == "reward" or column.startswith((JUDGED, JUDGED_BY, PART)):
            name = column.removeprefix(JUDGED).replace(".", "_")
            before, after = base.get(column), aligned[column]
            values |= {f"{name}_base": before, f"{name}_aligned": after}
            values[f"{name}_gain"] = None if before is None or after is None else after - before
    values |= {"tokens_base": base["tokens"], "tokens_aligned": aligned["tokens"]}
    if aligned["logprob"] is not None and aligned["base_logprob"] is not None:
        values["log_ratio"] = aligned["logprob"] - aligned["base_logprob"]
    return {name: float(value) for name, value in values.items() if value is not None and abs(value) < float("inf")}
