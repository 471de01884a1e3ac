"""The pairs that were `given`: rows of preference data as pairs in token ids, as TRL's DPOTrainer makes them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from alignment.config import AlignConfig
from alignment.data.chat import Message
from alignment.data.pairs.source import pair_source
from alignment.data.preferences import FaultyRowError, Preference, Side, preference
from alignment.data.prompts.ids import hash_ids
from alignment.data.prompts.pairs import PairPrompts
from alignment.errors import DataError, PairsError
from alignment.parquet import OBJECT_ROWS
from alignment.rows import PAIRS, TEXTS, Pair
from alignment.stages.job import Counts, Job
from alignment.stages.outlined import base_outline
from alignment.stages.sides import Sides

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded

STRATEGY = "given"


@pair_source("given", sampled=False)
def of_rows(job: Job) -> tuple[Iterator[pa.Table], Counts]:
    """The pairs whose prompt is on the training side, and every row that gave none, with its fault."""
    counts: Counts = {}
    return _built(job, counts), counts


def _built(job: Job, counts: Counts) -> Iterator[pa.Table]:
    sides, rows = Sides(job.inputs["prompts"]), TEXTS.count(job.inputs["texts"])
    made = Tokenised(base_outline(job), job.config)
    found: Counter[str] = Counter(rows=rows, faulty=0, held_out=0, without_prompt=0)
    numbers = count()
    for batch in TEXTS.batches(job.inputs["texts"], ["columns"], rows=OBJECT_ROWS):
        built: list[Pair] = []
        for columns, number in zip(batch["columns"].to_pylist(), numbers, strict=False):
            row = made.pair(columns, number)
            side = "faulty" if row["fault"] else sides.of(row["prompt_id"])
            if side in {"train", "faulty"}:
                built.append(row)
            found[{"train": "kept", "eval": "held_out", "": "without_prompt"}.get(side, side)] += 1
            job.progress(number + 1, rows)
        yield PAIRS.of(built)
    if not found["kept"]:
        raise PairsError(
            f"pairs: none of {rows} rows is a pair whose prompt is trained on ({found['faulty']} are faulty, "
            f"{found['held_out']} held out, {found['without_prompt']} have a prompt that is too long, not needed or "
            "used before); run `plumbline check` on the data"
        )
    counts |= found


@dataclass(frozen=True)
class Ids:
    """A pair in token ids: the prompt as both sides share it, and what each side adds to it."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


class Tokenised:
    """Makes pairs of rows by a model's tokenizer and chat template."""

    def __init__(self, base: "Loaded", config: AlignConfig) -> None:
        """Of the model, its tokenizer and conventions alone are used."""
        self.base = base
        self.prompts = PairPrompts(base, config)

    def pair(self, columns: str, number: int) -> Pair:
        """The pair of a row whose columns are given as JSON, or one that says what is wrong with it."""
        row = json.loads(columns)
        try:
            given = preference(row)
            ids = self.ids(given)
            prompt = self.prompts.of(given)
        except FaultyRowError as fault:
            return _faulty(row, number, fault.name)
        prompt_id = "" if isinstance(prompt, str) else hash_ids(prompt.ids)
        return self._as_pair(given, ids, prompt_id, number)

    def ids(self, given: Preference) -> Ids:
        """The token ids of a pair, as TRL 1.16 makes them.

        Prompt and completion are tokenised together, so that a token may span both; the prompt then ends where one of
        the sides parts from it. A text's completion ends with the model's end token, a chat's as its template ends it.
        Raises FaultyRowError where the template fails, no prompt is left, or the pair exceeds the model's context, and
        ModelError where there is no template, or the model has no embedding for a token.
        """
        prompt, *sides = self._of_chat(given) if given.is_chat else self._of_text(given)
        end = min(_shared(prompt, side) for side in sides)
        if not end:
            raise FaultyRowError("no_prompt_token", f"the prompt {str(given.prompt)[:40]!r} has no token of its own")
        most, longest = self.base.conventions.longest, max(map(len, sides))
        if most is not None and longest > most:
            raise FaultyRowError("too_long", f"{longest} tokens, and the model sees {most}")
        return Ids(prompt[:end], sides[0][end:], sides[1][end:])

    def _of_chat(self, given: Preference) -> list[list[int]]:
        """Of prompt, chosen and rejected, the last two with the prompt."""
        chat = self.prompts.chats.chat
        before = chat.with_system(messages(given.prompt))
        try:
            found = [chat.encode(before)]
            for side in (given.chosen, given.rejected):
                found.append(chat.encode([*before, *messages(side)], add_generation_prompt=False))
        except DataError as error:
            raise FaultyRowError("template_failed", str(error)) from error
        self.base.conventions.require_known(found, self.base.name, self.base.tokenizer)
        return found

    def _of_text(self, given: Preference) -> list[list[int]]:
        """Of prompt, chosen and rejected, the last two with the prompt, and with the end token unless it is there."""
        end = self.base.tokenizer.eos_token or ""
        texts = [f"{given.prompt}{side}" for side in (given.chosen, given.rejected)]
        prompt, *sides = self.base.encode([str(given.prompt), *(f"{text.removesuffix(end)}{end}" for text in texts)])
        last = () if end else self.base.conventions.ends[:1]
        return [prompt, *([*side, *last] for side in sides)]

    def _as_pair(self, given: Preference, ids: Ids, prompt_id: str, number: int) -> Pair:
        text = self.base.decode([ids.prompt], [True])[0] if given.is_chat else str(given.prompt)
        return {
            "pair_id": f"row-{number}",
            "prompt_id": prompt_id,
            "prompt": text,
            "prompt_ids": ids.prompt,
            "chosen": f"{text}{_written(given.chosen)}",
            "rejected": f"{text}{_written(given.rejected)}",
            "chosen_ids": ids.chosen,
            "rejected_ids": ids.rejected,
            "chosen_score": given.chosen_score,
            "rejected_score": given.rejected_score,
            "gap": given.gap,
            "chosen_tokens": len(ids.chosen),
            "rejected_tokens": len(ids.rejected),
            "strategy": STRATEGY,
            "chosen_logprob": None,
            "rejected_logprob": None,
            "exact_logprob": False,
            "fault": "",
        }


def messages(side: Side) -> list[Message]:
    """A side of a conversation."""
    assert isinstance(side, list)
    return side


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two rows begin with alike."""
    alike = [left == right for left, right in zip(one, other, strict=False)]
    return [*alike, False].index(False)


def _written(side: Side) -> str:
    """A completion for people."""
    return side if isinstance(side, str) else "\n".join(str(message.get("content", "")) for message in side)


def _faulty(row: Mapping[str, Any], number: int, fault: str) -> Pair:
    """A row that gave no pair, with what stands there as it came."""
    prompt, chosen, rejected = (_raw(row.get(name)) for name in ("prompt", "chosen", "rejected"))
    return {
        "pair_id": f"row-{number}",
        "prompt_id": "",
        "prompt": prompt,
        "prompt_ids": [],
        "chosen": chosen,
        "rejected": rejected,
        "chosen_ids": [],
        "rejected_ids": [],
        "chosen_score": None,
        "rejected_score": None,
        "gap": None,
        "chosen_tokens": 0,
        "rejected_tokens": 0,
        "strategy": STRATEGY,
        "chosen_logprob": None,
        "rejected_logprob": None,
        "exact_logprob": False,
        "fault": fault,
    }


def _raw(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
