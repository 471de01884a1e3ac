"""Whether given pairs, or prompts, can be used: what a run would find in them, before any weight is loaded."""

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignment.config import AlignConfig
from alignment.data import words
from alignment.data.preferences import FaultyRowError, preference
from alignment.data.reading import files_of, is_local, read_columns
from alignment.data.texts import GRAMMAR, load_texts, sources_of
from alignment.errors import DataError
from alignment.kinds import PROMPTS as SOURCES
from alignment.rows import PAIRS, Pair, Text
from alignment.stages.sources import wanted_rows
from expectations.arrays import frame
from expectations.runner import validate
from expectations.verdict import Check, Validation

if TYPE_CHECKING:
    from alignment.data.prompts.source import Prompts
    from alignment.models import Loaded

FIRST = 5
"""How many rows of each reason are named."""

REPEATS = "repeats an earlier pair"


@dataclass(frozen=True)
class Apart:
    """A reason for which rows are set apart: what they must be, how many are not, and where the first of them stand."""

    name: str
    bound: str
    rows: int
    where: tuple[str, ...]
    quarantined: bool = True


@dataclass(frozen=True)
class Lengths:
    """Of prompts or completions, in tokens."""

    name: str
    shortest: int
    median: float
    most: float
    """What 95 of 100 are not longer than."""
    longest: int


@dataclass(frozen=True)
class Checked:
    """What was found; `problems` are what would stop a run, empty where nothing would.

    `model` is whose tokens are counted, empty for words. `counts` say what became of each row, and sum to `rows`.
    """

    data: str
    model: str
    rows: int
    counts: dict[str, int]
    formats: dict[str, int]
    apart: tuple[Apart, ...]
    checks: tuple[Check, ...]
    lengths: tuple[Lengths, ...]
    problems: tuple[str, ...]

    @property
    def fine(self) -> bool:
        """Whether nothing would stop a run."""
        return not self.problems

    @property
    def not_applied(self) -> dict[str, str]:
        """The checks that were not applied, and why."""
        return {check.name: check.not_applied for check in self.checks if check.not_applied}


def check(config: AlignConfig) -> Checked:
    """Read the data, make pairs and prompts of every row, and validate them as a run would.

    Raises DataError where the data cannot be read at all, and ModelError where the base model's config or tokenizer
    cannot; where a base model is called `words`, or is yet to be trained, words stand in for its tokens.
    """
    from alignment.outline import outline

    name = config.base.model
    known = name not in (words.NAME, "train")
    base = outline(name, config.base.revision) if known else words.Words()
    rows = list(_rows(config))
    if not rows:
        raise DataError(f"data.path {config.data.path}: has no rows")
    found = _check_pairs(rows, base, config) if config.prompts.source == "pairs" else _check_prompts(rows, base, config)
    return replace(found, model=name if known else "")


Row = tuple[str, Text]
"""Where a row stands, and what it holds."""


def _rows(config: AlignConfig) -> Iterator[Row]:
    """Every row in the order of the files, also those that have no text."""
    wanted = wanted_rows(config)
    sources = sources_of(config.data)
    with tempfile.TemporaryDirectory() as cache:
        for source in sources:
            here = replace(wanted, path=source.path, label="")
            if source.path == GRAMMAR:
                made = load_texts(config.data, config.seed, Path(cache), here)[0]
                yield from ((str(number), row) for number, row in enumerate(made, 1))
                continue
            files = files_of(source.path) if is_local(source.path) else [None]
            for file in files:
                columns = read_columns(here, Path(cache), [file] if file else None)
                several = len(files) + len(sources) > 2
                for number, (text, others) in enumerate(zip(columns.texts, columns.others, strict=True), 1):
                    place = f"{file.name if file else source.path}:{number}" if several else str(number)
                    yield place, {"text": text or "", "label": -1, "columns": others}


def _check_pairs(rows: Sequence[Row], base: "Loaded", config: AlignConfig) -> Checked:
    from alignment.data.pairs.given import Tokenised

    made = Tokenised(base, config)
    pairs = [made.pair(row["columns"], number) for number, (_, row) in enumerate(rows)]
    places = {pair["pair_id"]: place for pair, (place, _) in zip(pairs, rows, strict=True)}
    prompts, problems = _prompts([row for _, row in rows], base, config)
    sides = {} if prompts is None else {cut.id: cut.split for cut in (*prompts.train, *prompts.held_out)}
    by_side: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        side = "faulty" if pair["fault"] else "train" if prompts is None else sides.get(pair["prompt_id"], "unused")
        by_side[side].append(pair)
    held_out = {prompt for prompt, side in sides.items() if side == "eval"}
    judged = [
        _validated(found, config, held_out) for found in ([*by_side["train"], *by_side["faulty"]], by_side["eval"])
    ]
    whole = judged[0]
    if whole is None or not by_side["train"]:
        problems.append("pairs: no row is a pair to train on")
    elif whole.problem:
        problems.append(whole.problem)
    counts = {"to train on": len(by_side["train"]), "held out": len(by_side["eval"])}
    counts |= {"give no pair": len(by_side["faulty"]), "have a prompt that is not used": len(by_side["unused"])}
    sound = [pair for pair in pairs if not pair["fault"]]
    return Checked(
        data=_named(config),
        model="",
        rows=len(rows),
        counts={name: count for name, count in counts.items() if count},
        formats=dict(Counter(filter(None, (_format(row["columns"]) for _, row in rows))).most_common()),
        apart=tuple(_apart([found for found in judged if found is not None], sound, places)),
        checks=whole.checks if whole is not None else (),
        lengths=_lengths(
            prompt=[len(pair["prompt_ids"]) for pair in sound],
            chosen=[pair["chosen_tokens"] for pair in sound],
            rejected=[pair["rejected_tokens"] for pair in sound],
        ),
        problems=tuple(problems),
    )


def _check_prompts(rows: Sequence[Row], base: "Loaded", config: AlignConfig) -> Checked:
    filled = [row for _, row in rows if row["text"]]
    prompts, problems = _prompts(filled, base, config)
    counts = {"have no text": len(rows) - len(filled)} | ({} if prompts is None else _told(prompts.counts))
    cuts = [] if prompts is None else [*prompts.train, *prompts.held_out]
    return Checked(
        data=_named(config),
        model="",
        rows=len(rows),
        counts={name: count for name, count in counts.items() if count},
        formats={f"prompts, {config.prompts.source}": len(filled)},
        apart=(),
        checks=(),
        lengths=_lengths(prompt=[len(cut.ids) for cut in cuts]),
        problems=tuple(problems),
    )


def _prompts(rows: list[Text], base: "Loaded", config: AlignConfig) -> "tuple[Prompts | None, list[str]]":
    """The prompts of both sides, or why there are none."""
    from alignment.data.prompts.ids import read_ids
    from alignment.data.prompts.source import Rows

    excluded = read_ids(config.prompts.exclude) if config.prompts.exclude else set()
    given = Rows(lambda: rows, (lambda: _held_out(config)) if config.prompts.eval_path else None)
    try:
        return SOURCES.get(config.prompts.source)(given, base, config, excluded), []
    except DataError as error:
        return None, [str(error)]


def _held_out(config: AlignConfig) -> list[Text]:
    data = config.data.model_copy(update={"path": config.prompts.eval_path, "mixture": ()})
    return [row for _, row in _rows(config.model_copy(update={"data": data})) if row["text"]]


def _validated(pairs: list[Pair], config: AlignConfig, held_out: set[str]) -> Validation | None:
    """What validation makes of pairs, with the types that they have between stages; None of none."""
    if not pairs:
        return None
    return validate(frame(PAIRS.of(pairs)), config.validation, held_out)


def _apart(judged: Sequence[Validation], sound: Sequence[Pair], places: dict[str, str]) -> Iterator[Apart]:
    """Every reason, most frequent first, then the pairs that repeat an earlier one."""
    where: dict[str, list[str]] = defaultdict(list)
    for found in judged:
        for pair_id, broken in zip(found.quarantined["pair_id"], found.quarantined["broken"], strict=True):
            for name in broken:
                where[name].append(places[pair_id])
    bounds = {check.name: check.bound for found in judged for check in found.checks}
    for name, rows in sorted(where.items(), key=lambda item: -len(item[1])):
        yield Apart(name, bounds.get(name, ""), len(rows), tuple(rows[:FIRST]))
    seen: set[Any] = set()
    again = []
    for pair in sound:
        content = tuple(tuple(ids) for ids in (pair["prompt_ids"], pair["chosen_ids"], pair["rejected_ids"]))
        if content in seen:
            again.append(places[pair["pair_id"]])
        seen.add(content)
    if again:
        yield Apart(REPEATS, "", len(again), tuple(again[:FIRST]), quarantined=False)


def _lengths(**columns: Sequence[int]) -> tuple[Lengths, ...]:
    return tuple(
        Lengths(name, min(found), float(np.median(found)), float(np.quantile(found, 0.95)), max(found))
        for name, found in columns.items()
        if found
    )


def _format(columns: str) -> str:
    try:
        return preference(json.loads(columns)).format
    except FaultyRowError:
        return ""


def _named(config: AlignConfig) -> str:
    return ", ".join(source.path for source in sources_of(config.data))


def _told(counts: dict[str, int]) -> dict[str, int]:
    names = {"train": "to train on", "eval": "held out"}
    return {names.get(name, name.replace("_", " ")): count for name, count in counts.items()}
