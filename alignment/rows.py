"""What passes between stages: the rows of each table with their columns and types, and the names of the files."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from alignment.stages.files import PARTS

R = TypeVar("R")

GROUP_ROWS = 4096
"""Rows of a row group, the least that is decoded at once: what a table in batches holds in memory."""

OBJECT_ROWS = 1024
"""Rows that are Python objects at a time, which take several times the memory."""

REPEATED = ("prompt_id", "prompt", "split", "side", "strategy", "fault", "reference")
"""Columns of texts of which many rows have the same."""

MODEL = "model"  # a folder, in the `save_pretrained` layout
ADAPTER = "adapter"  # a folder as peft writes it, where an adapter was trained
MEASURED = "metrics.json"  # what was measured when a model was trained here
LABELS = "labels.json"
SCALES = "scales.json"  # the SDs on the base's samples that parts of a sum were divided by
CHECKS = "checks.json"
HISTORY = "history.json"
REPORT = "report.json"
SAMPLE_TEXTS = "samples.json"
TASKS = "regression.json"


class Text(TypedDict):
    """A text with its label: 1 positive, 0 negative, -1 where no labels are asked for.

    `columns` are further columns of its row as a JSON object, empty where none are wanted. Of chats and of given pairs
    the text is JSON as well: the messages, or a prompt as a string.
    """

    text: str
    label: int
    columns: str


class Prompt(TypedDict):
    """A prompt: its token ids, which its id is the hash of, their text, and the side that it is on: `train` first.

    `messages` are those of a chat as JSON, empty for other prompts; `columns` as in `Text`.
    """

    prompt_id: str
    prompt: str
    prompt_ids: list[int]
    split: Literal["train", "eval"]
    messages: str
    columns: str


class Sample(TypedDict, total=False):
    """One completion of a prompt: token ids with the end token where it ended, and the whole text with the prompt.

    `completion` is the text of the completion alone, without special tokens.
    `logprob` is log p(completion | prompt) under the model that wrote it, a sum in nats; exact where it was computed in
    fp32, as training and evaluation need it. `reward` is there once the sample was scored, None where it got no score;
    `base_logprob`, under the base model (or the anchor in its place), and judged columns are there for samples of the
    evaluation.
    """

    prompt_id: str
    prompt: str
    prompt_ids: list[int]
    index: int
    ids: list[int]
    text: str
    completion: str
    finished: bool
    logprob: float
    exact_logprob: bool
    reward: float | None
    base_logprob: float


class Pair(TypedDict, total=False):
    """Two completions of one prompt, chosen over rejected; lengths in tokens, `gap` in units of the reward.

    Pairs that were given may have no scores, and no gap or a margin in its place; their log-probs are None. Where a row
    gave no pair, `fault` names what is wrong with it, and its sides are what stood there; else it is empty. The
    reference's log-probs, and the digest of the model that they are from, are there once they were added.
    """

    pair_id: str
    prompt_id: str
    prompt: str
    prompt_ids: list[int]
    chosen: str
    rejected: str
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_score: float | None
    rejected_score: float | None
    gap: float | None
    chosen_tokens: int
    rejected_tokens: int
    strategy: str
    chosen_logprob: float | None
    rejected_logprob: float | None
    exact_logprob: bool
    fault: str
    reference_chosen: float
    reference_rejected: float
    reference: str


@dataclass(frozen=True)
class Table(Generic[R]):
    """A Parquet file in a stage's folder: its name, and the type of each column.

    Its rows stand in groups of `GROUP_ROWS`, so a file's bytes do not depend on the pieces that it was written in.
    """

    file: str
    schema: pa.Schema

    def read(self, folder: Path, columns: Sequence[str] | None = None) -> list[R]:
        """The rows, or some columns of them, as dicts: all at once, for what is small."""
        rows: list[R] = [row for batch in self.batches(folder, columns) for row in batch.to_pylist()]
        return rows

    def whole(self, folder: Path, columns: Sequence[str]) -> pa.Table:
        """Some columns of all rows at once."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        return pa.concat_tables([schema.empty_table(), *self.batches(folder, columns)]).combine_chunks()

    def count(self, folder: Path) -> int:
        """How many rows there are; none is read."""
        return sum(rows for _, rows in self._files(folder))

    def batches(
        self,
        folder: Path,
        columns: Sequence[str] | None = None,
        *,
        rows: int = GROUP_ROWS,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[pa.Table]:
        """Rows `start` to `stop` (excluded; by default the end) in order, at most `rows` of them at a time.

        One row group is in memory, and those outside of the range are not decoded. Of a stage in parts, the batches are
        those of one file.
        """
        for group in _regrouped(self._groups(folder, columns, start, stop)):
            for at in range(0, len(group), rows):
                yield group.slice(at, rows)

    def _groups(
        self, folder: Path, columns: Sequence[str] | None, start: int, stop: int | None
    ) -> Iterator[tuple[int, pa.Table]]:
        """What the row groups hold of a range of rows, with the number of the first of them."""
        first = 0
        for path, there in self._files(folder):
            if first + there <= start or (stop is not None and first >= stop):
                first += there
                continue
            with pq.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    length = file.metadata.row_group(number).num_rows
                    low, high = max(start - first, 0), min(length, length if stop is None else stop - first)
                    if low < high:
                        yield first + low, file.read_row_group(number, columns=columns).slice(low, high - low)
                    first += length

    def _files(self, folder: Path) -> list[tuple[Path, int]]:
        """The files that hold the rows of a stage, and how many each: its own, or those of its parts."""
        if not (folder / PARTS).exists():
            return [(folder / self.file, int(pq.read_metadata(folder / self.file).num_rows))]
        root, index = folder.parent.parent, json.loads((folder / PARTS).read_text(encoding="utf-8"))
        return [(root / part["folder"] / self.file, part["rows"][self.file]) for part in index]

    def of(self, rows: Iterable[R | Mapping[str, Any]]) -> pa.Table:
        """Rows that have every column as a table; other keys are passed over. Raises KeyError for a gap."""
        return _table(list(rows), self.schema)

    @contextmanager
    def writer(self, folder: Path, extra: Mapping[str, pa.DataType] = {}) -> Iterator["Writer[R]"]:
        """A file that is written piece by piece; `extra` are columns beside the schema's."""
        schema = pa.schema([*self.schema, *(pa.field(name, kind) for name, kind in extra.items())])
        with pq.ParquetWriter(folder / self.file, schema, **_encodings(schema)) as file:
            writer: Writer[R] = Writer(file, schema)
            yield writer
            writer.finish()

    def write(self, folder: Path, rows: Iterable[R | Mapping[str, Any]], extra: Mapping[str, pa.DataType] = {}) -> None:
        """Write rows that have every column, and those of `extra`. Raises KeyError for a gap."""
        with self.writer(folder, extra) as writer:
            writer.write(rows)


def _regrouped(pieces: Iterable[tuple[int, pa.Table]]) -> Iterator[pa.Table]:
    """Rows that follow one another, each piece with the number of its first, in groups as one file holds them."""
    waiting: list[pa.Table] = []
    for first, piece in pieces:
        while len(piece):
            room = GROUP_ROWS - first % GROUP_ROWS
            waiting.append(piece.slice(0, room))
            first, piece = first + len(waiting[-1]), piece.slice(room)
            if not first % GROUP_ROWS:
                yield _joined(waiting)
                waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(pieces: Sequence[pa.Table]) -> pa.Table:
    return pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces).combine_chunks()


class Writer(Generic[R]):
    """Appends to the file of a table; what is not yet a whole row group waits in memory."""

    def __init__(self, file: pq.ParquetWriter, schema: pa.Schema) -> None:
        """`Table.writer` makes it."""
        self.schema = schema
        self._file = file
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def write(self, rows: Iterable[R | Mapping[str, Any]]) -> None:
        """Append rows that have every column; other keys are passed over. Raises KeyError for a gap."""
        left = iter(rows)
        while some := list(islice(left, GROUP_ROWS)):
            self.append(_table(some, self.schema))

    def append(self, table: pa.Table) -> None:
        """Append a table that has every column, in any order; others are passed over. Raises KeyError for a gap."""
        self._waiting.append(table.select(self.schema.names).cast(self.schema))
        self._rows += len(table)
        if self._rows >= GROUP_ROWS:
            self._write_groups(self._rows - self._rows % GROUP_ROWS)

    def finish(self) -> None:
        """Write the last rows, which fill no group."""
        if self._rows:
            self._write_groups(self._rows)

    def _write_groups(self, rows: int) -> None:
        whole = pa.concat_tables(self._waiting)
        for start in range(0, rows, GROUP_ROWS):
            group = whole.slice(start, min(GROUP_ROWS, rows - start)).combine_chunks()
            self._file.write_table(group, row_group_size=GROUP_ROWS)
        self._waiting, self._rows = [whole.slice(rows)], self._rows - rows


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """Token ids byte by byte, of which the upper ones are mostly 0; a dictionary of what comes again and again alone.

    For 100,000 lists of 48 ids and texts of 150 characters that takes 0.4 of the time that Parquet's defaults take, and
    0.8 of the space.
    """
    ids = [f"{field.name}.list.element" for field in schema if field.type == _IDS]
    return {
        "use_dictionary": [name for name in REPEATED if name in schema.names],
        "column_encoding": dict.fromkeys(ids, "BYTE_STREAM_SPLIT"),
    }


def _table(rows: Sequence[Any], schema: pa.Schema) -> pa.Table:
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


_IDS = pa.list_(pa.int32())
_PROMPT = [("prompt_id", pa.string()), ("prompt", pa.string()), ("prompt_ids", _IDS)]
_SAMPLE = [
    *_PROMPT,
    ("index", pa.int64()),
    ("ids", _IDS),
    ("text", pa.string()),
    ("completion", pa.string()),
    ("finished", pa.bool_()),
    ("logprob", pa.float64()),
    ("exact_logprob", pa.bool_()),
]
_SCORED = [*_SAMPLE, ("reward", pa.float64())]
_PAIR = [
    ("pair_id", pa.string()),
    *_PROMPT,
    ("chosen", pa.string()),
    ("rejected", pa.string()),
    ("chosen_ids", _IDS),
    ("rejected_ids", _IDS),
    ("chosen_score", pa.float64()),
    ("rejected_score", pa.float64()),
    ("gap", pa.float64()),
    ("chosen_tokens", pa.int64()),
    ("rejected_tokens", pa.int64()),
    ("strategy", pa.string()),
    ("chosen_logprob", pa.float64()),
    ("rejected_logprob", pa.float64()),
    ("exact_logprob", pa.bool_()),
    ("fault", pa.string()),
]

TEXTS: Table[Text] = Table(
    "texts.parquet", pa.schema([("text", pa.string()), ("label", pa.int64()), ("columns", pa.string())])
)
PROMPTS: Table[Prompt] = Table(
    "prompts.parquet",
    pa.schema([*_PROMPT, ("split", pa.string()), ("messages", pa.string()), ("columns", pa.string())]),
)
SAMPLES: Table[Sample] = Table("samples.parquet", pa.schema(_SAMPLE))
SCORES: Table[Sample] = Table("scores.parquet", pa.schema(_SCORED))
PAIRS: Table[Pair] = Table("pairs.parquet", pa.schema(_PAIR))
ACCEPTED: Table[Pair] = Table("accepted.parquet", pa.schema(_PAIR))
QUARANTINED: Table[Pair] = Table("quarantined.parquet", pa.schema([*_PAIR, ("broken", pa.list_(pa.string()))]))
REFERENCED: Table[Pair] = Table(
    "pairs.parquet",
    pa.schema(
        [*_PAIR, ("reference_chosen", pa.float64()), ("reference_rejected", pa.float64()), ("reference", pa.string())]
    ),
)
EVALUATED: Table[Sample] = Table("samples.parquet", pa.schema([*_SCORED, ("base_logprob", pa.float64())]))

TRAJECTORY: Table[Any] = Table(
    "trajectory.parquet", pa.schema([("step", pa.int64()), *EVALUATED.schema, ("kl", pa.float64())])
)
"""`EVALUATED` rows of a policy at steps of its training, each with the KL from the reference where the policy wrote it.

It is exact over the vocabulary at each position and summed over them, in nats.
"""

ANCHORED: Table[Any] = Table("anchored.parquet", pa.schema([("side", pa.string()), ("base_logprob", pa.float64())]))
"""The log-probs under the anchor of both models' samples, in their order: those of `before`, then those of `after`."""

RANKED: Table[Any] = Table(
    "ranked.parquet",
    pa.schema(
        [
            ("prompt_id", pa.string()),
            ("base_chosen", pa.float64()),
            ("base_rejected", pa.float64()),
            ("policy_chosen", pa.float64()),
            ("policy_rejected", pa.float64()),
        ]
    ),
)
"""The log-probs of held-out pairs under the base and the aligned model: sums over each completion, in nats."""

GOLD: Table[Any] = Table(
    "gold.parquet", pa.schema([("side", pa.string()), ("prompt_id", pa.string()), ("index", pa.int64())])
)
"""What second judges make of both models' samples, in their order: those of `before`, then those of `after`."""

OF_REALISM = ("words", "word_logprobs", "bigrams", "seen_bigrams", "outranked")
"""The figures of `REALISM` that metrics are computed from."""

REALISM: Table[Any] = Table(
    "realism.parquet",
    pa.schema(
        [
            *GOLD.schema,
            *((name, pa.float64()) for name in OF_REALISM),
            ("real_probability", pa.float64()),
        ]
    ),
)
"""Both models' samples beside real texts, in the same order: what `alignment.judging.judges` says of each of them.

`words` and `bigrams` are counts, `word_logprobs` the sum over the words in nats. What was not told from real texts has
null for `outranked` and `real_probability`.
"""

JUDGED_BY = "gold."
"""How the columns of their scores begin, in `GOLD` rows: `gold.second`."""

PART = "part."
"""How the columns of the parts of a sum begin, in `SCORES` and `EVALUATED` rows: `part.style`."""

JUDGED = "judged."
"""How the columns of a judge's figures begin, in `EVALUATED` rows: `judged.grammatical`."""
