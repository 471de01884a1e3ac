"""Labelled texts from the built-in grammar, a file, or a dataset on the hub."""

from pathlib import Path
from typing import Any

from alignment.config import DataConfig
from alignment.data import grammar
from alignment.data.labels import UNLABELLED, Classes, Labels
from alignment.data.reading import Columns, read_columns
from alignment.errors import DataError

GRAMMAR_ROWS = 12_000  # the grammar has no end: what `data.rows: 0` means for it


Texts = tuple[list[dict[str, Any]], dict[str, int], Labels]


def load_texts(config: DataConfig, seed: int, cache: Path) -> Texts:
    """Rows with `text` and `label` in seeded random order: 1 positive, 0 negative, -1 where no labels are asked for.

    The counts say what was read, kept and dropped, and sum; the labels are those of all usable texts, kept or not
    needed. Raises DataError where the data cannot be used.
    """
    if config.path == "grammar":
        rows = [{"text": text, "label": label} for text, label in grammar.corpus(config.rows or GRAMMAR_ROWS, seed)]
        classes = Classes(DataConfig())
        for row in rows:
            classes.of(str(row["label"]))
        return rows, {"read": len(rows), "kept": len(rows)}, classes.found()
    return _select(read_columns(config, cache), config, seed)


def _select(columns: Columns, config: DataConfig, seed: int) -> Texts:
    import numpy as np

    total = len(columns.texts)
    counts = {
        "read": total,
        "kept": 0,
        "blank": 0,
        "too_short": 0,
        "too_long": 0,
        "no_label": 0,
        "other_label": 0,
        "not_needed": 0,
    }
    rows: list[dict[str, Any]] = []
    classes = Classes(config)
    for index in np.random.default_rng(seed).permutation(total).tolist():
        text = columns.texts[index]
        if text is None or not text.strip():
            counts["blank"] += 1
        elif len(text) < config.min_chars:
            counts["too_short"] += 1
        elif len(text) > config.max_chars:
            counts["too_long"] += 1
        elif (label := classes.of(columns.labels[index])) is None:
            counts["no_label"] += 1
        elif config.label_column and label == UNLABELLED:
            counts["other_label"] += 1
        elif len(rows) == (config.rows or total):
            counts["not_needed"] += 1
        else:
            rows.append({"text": text, "label": label})
            counts["kept"] += 1
    if not rows:
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        raise DataError(f"data.path {config.path}: no usable text ({told or 'it has no rows'})")
    return rows, counts, classes.found()
