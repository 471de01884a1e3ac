"""The rows that a run starts from: of the built-in grammar, of files or of the hub, from one source or a mixture."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config import DataConfig, SourceConfig
from alignment.data import grammar
from alignment.data.labels import UNLABELLED, Classes, Labels
from alignment.data.reading import Columns, files_of, is_local, read_columns
from alignment.data.wanted import Wanted, as_json
from alignment.errors import DataError
from alignment.rows import Text
from alignment.stages.store import digest_file

if TYPE_CHECKING:
    from numpy.random import Generator

GRAMMAR = "grammar"
GRAMMAR_ROWS = 12_000  # the grammar has no end: what `data.rows: 0` means for it

COUNTED = ("read", "kept", "blank", "too_short", "too_long", "no_label", "other_label", "not_needed")

Texts = tuple[list[Text], dict[str, int], Labels]


def sources_of(config: DataConfig) -> tuple[SourceConfig, ...]:
    """The sources of the rows with their weights: the mixture's, or the only one."""
    return config.mixture or (SourceConfig(path=config.path),)


def load_texts(config: DataConfig, seed: int, cache: Path, wanted: Wanted | None = None) -> Texts:
    """Rows with `text`, `label` and `columns` in seeded random order; `wanted` names the columns, else the config does.

    A label is 1 positive, 0 negative, -1 where none is read. Rows of several files count in the order of the files'
    content, so that neither names nor places decide. The counts say what was read, kept and dropped, and sum; the
    labels are those of all usable texts, kept or not needed. Raises DataError where the data cannot be used.
    """
    import numpy as np

    wanted = wanted or wanted_of(config)
    if not config.mixture and config.path == GRAMMAR:
        return _of_grammar(config, seed, wanted)
    draws = np.random.default_rng(seed)
    classes = Classes(config.model_copy(update={"label_column": wanted.label}))
    found = [_columns(source.path, wanted, config, seed, cache) for source in sources_of(config)]
    shares = _shares(config, [len(each.texts) for each in found])
    counts = Counter(dict.fromkeys(COUNTED, 0))
    rows: list[Text] = []
    for each, most in zip(found, shares, strict=True):
        rows += _select(each, config, classes, most, counts, draws, nested=wanted.nested)
    if not rows:
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        raise DataError(f"data.path {_named(config)}: no usable text ({told or 'it has no rows'})")
    if len(found) > 1:
        rows = [rows[index] for index in draws.permutation(len(rows)).tolist()]
    return rows, dict(counts), classes.found()


def wanted_of(config: DataConfig) -> Wanted:
    """The columns that a configuration names, of texts."""
    return Wanted(
        config.path, text=config.text_column, label=config.label_column, columns=config.columns, split=config.split
    )


def _of_grammar(config: DataConfig, seed: int, wanted: Wanted) -> Texts:
    """Texts of the grammar, whose labels need no column."""
    made = grammar.corpus(config.rows or GRAMMAR_ROWS, seed)
    classes = Classes(DataConfig())
    for _, label in made:
        classes.of(str(label))
    rows: list[Text] = [
        {"text": as_json(text) if wanted.nested else text, "label": label, "columns": ""} for text, label in made
    ]
    return rows, {"read": len(rows), "kept": len(rows)}, classes.found()


def _select(
    columns: Columns,
    config: DataConfig,
    classes: Classes,
    most: int,
    counts: Counter[str],
    draws: "Generator",
    *,
    nested: bool,
) -> list[Text]:
    """At most `most` usable rows in random order; `counts` gains what became of every one.

    A `nested` text is JSON, null where there is none: what is wrong with it is for who reads it to say.
    """
    total = len(columns.texts)
    counts["read"] += total
    rows: list[Text] = []
    for index in draws.permutation(total).tolist():
        text = columns.texts[index] or ("null" if nested else "")
        if not text.strip():
            counts["blank"] += 1
        elif len(text) < config.min_chars and not nested:
            counts["too_short"] += 1
        elif len(text) > config.max_chars and not nested:
            counts["too_long"] += 1
        elif (label := classes.of(columns.labels[index])) is None:
            counts["no_label"] += 1
        elif classes.asked and label == UNLABELLED:
            counts["other_label"] += 1
        elif len(rows) == most:
            counts["not_needed"] += 1
        else:
            rows.append({"text": text, "label": label, "columns": columns.others[index]})
            counts["kept"] += 1
    return rows


def _columns(path: str, wanted: Wanted, config: DataConfig, seed: int, cache: Path) -> Columns:
    if path == GRAMMAR:
        made = grammar.corpus(config.rows or GRAMMAR_ROWS, seed)
        texts, labels = [text for text, _ in made], [str(label) if wanted.label else None for _, label in made]
        return Columns([as_json(text) if wanted.nested else text for text in texts], list(labels), [""] * len(made))
    here = Wanted(path, wanted.text, wanted.label, wanted.columns, wanted.optional, wanted.nested, wanted.split)
    files = sorted(files_of(path), key=digest_file) if is_local(path) else None
    return read_columns(here, cache, files)


def _shares(config: DataConfig, lengths: list[int]) -> list[int]:
    """How many rows each source gives: by its weight where there are several, and at most what it has.

    Without a bound on the rows, as many as the proportions allow.
    """
    if len(lengths) == 1:
        return [config.rows or lengths[0]]
    weights = [source.weight / sum(each.weight for each in config.mixture) for source in config.mixture]
    rows = config.rows or int(min(length / weight for length, weight in zip(lengths, weights, strict=True)))
    return [min(length, round(rows * weight)) for length, weight in zip(lengths, weights, strict=True)]


def _named(config: DataConfig) -> str:
    return ", ".join(source.path for source in sources_of(config))


def columns_of(row: Text) -> dict[str, Any]:
    """The further columns of a row."""
    import json

    found: dict[str, Any] = json.loads(row["columns"]) if row["columns"] else {}
    return found
