"""What passes between stages: the rows of each table with their columns and types, and the names of the files."""

from typing import Any, Literal, TypedDict

import pyarrow as pa

from alignment.parquet import IDS, Table

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


_PROMPT = [("prompt_id", pa.string()), ("prompt", pa.string()), ("prompt_ids", IDS)]
_SAMPLE = [
    *_PROMPT,
    ("index", pa.int64()),
    ("ids", IDS),
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
    ("chosen_ids", IDS),
    ("rejected_ids", IDS),
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
