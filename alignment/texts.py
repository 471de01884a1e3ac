"""Labelled texts from the built-in grammar, a file, or a dataset on the hub."""

import errno
import logging
from pathlib import Path
from typing import Any

from alignment import grammar
from alignment.config import DataConfig
from alignment.errors import DataError

logger = logging.getLogger(__name__)

FILE_KINDS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
UNLABELLED = -1
GRAMMAR_ROWS = 12_000  # the grammar has no end: what `data.rows: 0` means for it


def load_texts(config: DataConfig, seed: int, cache: Path) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows with `text` and `label` (1 positive, 0 not, -1 where there is no label column), in seeded random order.

    The counts say what was read, kept and dropped, and sum. Raises DataError where the data cannot be used.
    """
    if config.path == "grammar":
        rows = [{"text": text, "label": label} for text, label in grammar.corpus(config.rows or GRAMMAR_ROWS, seed)]
        return rows, {"read": len(rows), "kept": len(rows)}
    return _select(_read(config, cache), config, seed)


def is_file(path: str) -> bool:
    """Whether `data.path` means a file (by its ending or beginning, or as it exists) and not a dataset on the hub."""
    local = Path(path).is_absolute() or path.startswith((".", "~"))
    return local or Path(path).suffix.lower() in FILE_KINDS or Path(path).exists()


def require_file(path: Path) -> None:
    """Raise DataError unless it is a file, not empty, of a kind that can be read."""
    if not path.exists():
        raise DataError(f"data.path {path}: no such file; give a .parquet, .csv or .jsonl file, or a hub name")
    if path.suffix.lower() not in FILE_KINDS or not path.is_file():
        raise DataError(f"data.path {path}: not a {', '.join(sorted(FILE_KINDS))} file")
    if path.stat().st_size == 0:
        raise DataError(f"data.path {path}: the file is empty; it needs a text and a label column")


def _read(config: DataConfig, cache: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what goes wrong is told once, by the error below
    if is_file(config.path):
        path = Path(config.path)
        require_file(path)
        kind = FILE_KINDS[path.suffix.lower()]
        source: dict[str, Any] = {"path": kind, "data_files": str(path), "split": "train"}
    else:
        source = {"path": config.path, "split": config.split}
    try:
        return datasets.load_dataset(**source, cache_dir=str(cache))
    except Exception as error:  # the readers raise whatever their format's library raises
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            raise cause from None
        raise DataError(
            f"data.path {config.path}: cannot be read ({type(cause).__name__}: {' '.join(str(cause).split())[:200]}); "
            "give a readable .parquet, .csv or .jsonl file that has rows, or the name of a dataset that the hub has"
        ) from error


def _select(dataset: Any, config: DataConfig, seed: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    import numpy as np

    _require_columns(dataset, config)
    texts = dataset[config.text_column]
    labels = dataset[config.label_column] if config.label_column else [None] * len(dataset)
    counts = {
        "read": len(dataset),
        "kept": 0,
        "blank": 0,
        "too_short": 0,
        "too_long": 0,
        "no_label": 0,
        "not_needed": 0,
    }
    rows: list[dict[str, Any]] = []
    wanted = config.rows or len(dataset)
    texts, labels = list(texts), list(labels)
    for index in np.random.default_rng(seed).permutation(len(dataset)).tolist():
        text, label = texts[index], labels[index]
        if not isinstance(text, str) or not text.strip():
            counts["blank"] += 1
        elif len(text) < config.min_chars:
            counts["too_short"] += 1
        elif len(text) > config.max_chars:
            counts["too_long"] += 1
        elif config.label_column and label is None:
            counts["no_label"] += 1
        elif len(rows) == wanted:
            counts["not_needed"] += 1
        else:
            rows.append({"text": text, "label": _label(label, config)})
            counts["kept"] += 1
    if not rows:
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        raise DataError(f"data.path {config.path}: no usable text ({told or 'it has no rows'})")
    return rows, counts


def _require_columns(dataset: Any, config: DataConfig) -> None:
    for role, column in (("text_column", config.text_column), ("label_column", config.label_column)):
        if column and column not in dataset.column_names:
            hint = "" if role == "text_column" else ' or to "" if the texts have no labels'
            others = ", ".join(dataset.column_names) or "none"
            raise DataError(
                f"data.path {config.path}: has no column `{column}` (it has {others}); "
                f"set data.{role} to one of them{hint}"
            )


def _label(value: Any, config: DataConfig) -> int:
    if not config.label_column:
        return UNLABELLED
    spellings = {str(value)}
    if isinstance(value, bool | float) and value == int(value):
        spellings.add(str(int(value)))  # a CSV column of 0 and 1 with a gap in it is read as 0.0 and 1.0
    return int(config.positive_label in spellings)
