"""Every sample of an evaluation in one table, kept with the run's record: what two runs are compared by."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from alignment.errors import RecordError
from alignment.judging.report import SampleRow
from alignment.rows import JUDGED, JUDGED_BY, PART
from alignment.stages.store import digest

if TYPE_CHECKING:  # it brings the kinds of rewards
    from alignment.judging.smoke import Written

SIDES = ("base", "aligned")
KEY = b"plumbline"  # of the schema's metadata
FORM = 1
MAX_ROWS = 50_000  # samples of both models, some 3 MB of numbers
MAX_CHARACTERS = 4_000_000  # of all texts together

_COLUMNS = [
    ("side", pa.string()),
    ("prompt_id", pa.string()),
    ("index", pa.int64()),
    ("prompt", pa.string()),
    ("messages", pa.string()),
    ("completion", pa.string()),
    ("tokens", pa.int64()),
    ("finished", pa.bool_()),
    ("reward", pa.float64()),
    ("logprob", pa.float64()),
    ("base_logprob", pa.float64()),
]
READ = ["prompt_id", "prompt", "index", "ids", "completion", "finished", "reward", "logprob", "base_logprob"]
"""What of the stages' samples goes into the table, beside the judged columns."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The samples of both models on the held-out prompts, a row each, and what they were made and scored by.

    Columns: `side` (base or aligned), `prompt_id`, `index` among the prompt's samples, `prompt`, `messages` (a chat's,
    as JSON), `completion`, `tokens` (of the completion, its end token included), `finished`, `reward`, `logprob` under
    the model that wrote it and `base_logprob` under the base (sums over the completion, in nats), and a column for each
    figure of a judge, part of a sum and second judge. `reward` and `base` are digests of what scored and of the base
    model; empty where the record does not say. Texts are null behind the first `with_text` prompts.
    """

    table: pa.Table
    reward: str = ""
    base: str = ""
    prompts: int = 0
    """Held-out prompts of the evaluation; the table may have fewer."""
    recorded: int = 0
    with_text: int = 0
    whole: bool = True
    """Whether it was recorded as such: of older records only the first sample of the first prompts is known."""

    @property
    def left_out(self) -> str:
        """What the table does not have of the evaluation, in a sentence; empty where it has everything."""
        if not self.whole:
            return (
                f"This record keeps one sample of the first {self.recorded:,} of {self.prompts:,} held-out prompts, "
                "without log-probabilities."
            )
        if self.recorded < self.prompts:
            return f"Recorded are the first {self.recorded:,} of {self.prompts:,} held-out prompts."
        if self.with_text < self.recorded:
            return f"Texts are recorded of the first {self.with_text:,} of {self.prompts:,} held-out prompts."
        return ""

    def side(self, name: str) -> pa.Table:
        """The samples of one model."""
        return self.table.filter(pc.equal(self.table["side"], name))


def gather(
    before: pa.Table,
    after: pa.Table,
    messages: Mapping[str, str],
    gold: pa.Table | None = None,
    *,
    reward: str,
    base: str,
    max_rows: int = MAX_ROWS,
    max_characters: int = MAX_CHARACTERS,
) -> Evaluated:
    """The table of two stages' samples, which are in the prompts' order on both sides.

    `messages` has the chat of each prompt that is one; `gold` is the table of second judges, in the order of `before`
    and then `after`. Whole prompts are left out from the end: with all their samples where there are more than
    `max_rows`, or their texts alone behind `max_characters`.
    """
    parts = []
    for number, (name, samples) in enumerate(zip(SIDES, (before, after), strict=True)):
        further = {column: samples[column] for column in samples.column_names if column.startswith((JUDGED, PART))}
        if gold is not None:
            of_side = gold.slice(number * len(before), len(samples))
            further |= {column: of_side[column] for column in gold.column_names if column.startswith(JUDGED_BY)}
        columns = {
            "side": pa.repeat(name, len(samples)),
            "messages": pa.array([messages.get(each, "") for each in samples["prompt_id"].to_pylist()], pa.string()),
            "tokens": pc.list_value_length(samples["ids"]),
            **{column: samples[column] for column in READ if column != "ids"},
        }
        ordered = {column: columns[column].cast(kind) for column, kind in _COLUMNS}
        parts.append(pa.table(ordered | further))
    table = pa.concat_tables(parts, promote_options="default").combine_chunks()
    kept, with_text = _first_prompts(table, max_rows, max_characters)
    prompts = len(pc.unique(table["prompt_id"]))
    table = table.filter(pc.is_in(table["prompt_id"], value_set=pa.array(kept, pa.string())))
    silent = pc.invert(pc.is_in(table["prompt_id"], value_set=pa.array(kept[:with_text], pa.string())))
    for column in ("prompt", "messages", "completion"):
        place = table.column_names.index(column)
        table = table.set_column(place, column, pc.if_else(silent, pa.scalar(None, pa.string()), table[column]))
    return Evaluated(table, reward, base, prompts, len(kept), with_text)


def _first_prompts(table: pa.Table, max_rows: int, max_characters: int) -> tuple[list[str], int]:
    """The prompts that there is room for, in order, and of how many of them there is room for the texts."""
    characters = sum(
        (pc.fill_null(pc.utf8_length(table[column]), 0).to_numpy() for column in ("prompt", "messages", "completion")),
        start=0,
    )
    rows: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for prompt, size in zip(table["prompt_id"].to_pylist(), characters, strict=True):
        rows[prompt] = rows.get(prompt, 0) + 1
        sizes[prompt] = sizes.get(prompt, 0) + int(size)
    kept: list[str] = []
    with_text = 0
    for prompt in rows:
        max_rows -= rows[prompt]
        if max_rows < 0:
            break
        kept.append(prompt)
        max_characters -= sizes[prompt]
        with_text += max_characters >= 0
    return kept, with_text


def with_facts(found: Evaluated) -> pa.Table:
    """The table as it is written, with what is known of it in its schema's metadata."""
    facts = {
        "form": FORM,
        "reward": found.reward,
        "base": found.base,
        "prompts": found.prompts,
        "recorded": found.recorded,
        "with_text": found.with_text,
        "left_out": found.left_out,
    }
    return found.table.replace_schema_metadata({KEY: json.dumps(facts).encode()})


def read(table: pa.Table, source: str = "samples.parquet") -> Evaluated:
    """A table that was written, by this release. Raises RecordError where it is none, or of a newer form."""
    try:
        facts = json.loads((table.schema.metadata or {})[KEY])
        if facts["form"] > FORM:
            raise ValueError(f"form {facts['form']} is newer than the {FORM} that this release reads")
        if missing := {name for name, _ in _COLUMNS} - {*table.column_names}:
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        known = {name: facts[name] for name in ("reward", "base", "prompts", "recorded", "with_text")}
    except (KeyError, ValueError, TypeError) as error:
        raise RecordError(f"{source}: not a record of samples ({' '.join(str(error).split())})") from error
    return Evaluated(table.replace_schema_metadata(), **known)


def of_written(written: "Written", rewards: Sequence[float | None] | None, per_prompt: int) -> Evaluated:
    """Fresh samples of one model, `per_prompt` of each prompt in order; scores None where nothing scored them."""
    count = len(written.texts)
    found = [
        {
            **dict.fromkeys(name for name, _ in _COLUMNS),
            "side": "aligned",
            "prompt_id": digest([asked.prompt, asked.messages, number // per_prompt])[:16],
            "index": number % per_prompt,
            "prompt": asked.prompt,
            "messages": asked.messages,
            "completion": completion,
            "tokens": len(ids),
            "finished": finished,
            "reward": reward,
        }
        for number, (asked, completion, ids, finished, reward) in enumerate(
            zip(
                written.prompts,
                written.completions,
                written.ids,
                written.finished,
                rewards if rewards is not None else [None] * count,
                strict=True,
            )
        )
    ]
    prompts = count // per_prompt
    return Evaluated(
        pa.Table.from_pylist(found, pa.schema(_COLUMNS)), prompts=prompts, recorded=prompts, with_text=prompts
    )


def of_first_samples(rows: Sequence[SampleRow], prompts: int) -> Evaluated:
    """What an older record knows: one sample of each of its first prompts, without log-probs and lengths."""
    found: list[dict[str, Any]] = []
    for row in rows:
        prompt_id = digest([*row.prompt_ids] or [row.prompt, row.messages])[:16]
        for side in SIDES:
            text: str = getattr(row, side)
            found.append(
                {
                    **dict.fromkeys(name for name, _ in _COLUMNS),
                    "side": side,
                    "prompt_id": prompt_id,
                    "index": 0,
                    "prompt": row.prompt,
                    "messages": row.messages,
                    "completion": text.removeprefix(row.prompt),
                    "reward": getattr(row, f"{side}_reward"),
                }
            )
    table = pa.Table.from_pylist(found, pa.schema(_COLUMNS))
    kept = len({row["prompt_id"] for row in found})
    return Evaluated(table, prompts=prompts, recorded=kept, with_text=kept, whole=False)
