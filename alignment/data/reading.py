"""The rows of files, or of a dataset on the hub, as they are written: where they lie, and what reads each format."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from typing import BinaryIO

from alignment.data.tables import read_hub, read_parquet
from alignment.data.text_files import read_csv, read_json
from alignment.data.wanted import Row, Wanted, fault
from alignment.errors import DataError

READERS: dict[str, Callable[[BinaryIO, Wanted], Iterator[Row]]] = {
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".json": read_json,
    ".jsonl": read_json,
}
IN_FOLDERS = (".parquet", ".csv", ".jsonl")
"""How files end that are data where they lie in a folder; other .json files there say something about it."""

PATTERN = "glob:"
"""What a path begins with that is a pattern of file names."""


@dataclass(frozen=True)
class Columns:
    """N texts, N labels as they are spelt, and N JSON objects of further columns, "" where none are wanted.

    None stands where a row has no text or label, and where no label column is asked for.
    """

    texts: list[str | None] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def is_local(path: str) -> bool:
    """Whether a path means files (by its ending or beginning, or as it exists) and not a dataset on the hub."""
    local = Path(path).is_absolute() or path.startswith((".", "~", PATTERN))
    return local or Path(path).suffix.lower() in READERS or Path(path).exists()


def files_of(path: str) -> list[Path]:
    """The files that a path means: a file, the files of a folder that can be read, or those that a pattern finds.

    Raises DataError where there is none, or one is empty or of a kind that cannot be read.
    """
    if path.startswith(PATTERN):
        found = sorted(map(Path, glob(path.removeprefix(PATTERN), recursive=True)))  # noqa: PTH207 - it may be absolute
        files = [file for file in found if file.suffix.lower() in READERS and file.is_file()]
    elif Path(path).is_dir():
        files = sorted(file for file in Path(path).iterdir() if file.suffix.lower() in IN_FOLDERS and file.is_file())
    else:
        files = [Path(path)]
    if not files:
        raise DataError(f"data.path {path}: holds no {', '.join(IN_FOLDERS)} file; `Dataset.to_parquet` writes one")
    for file in files:
        _require_file(file)
    return files


def file_format(path: Path) -> str:
    """What decides, beside its content, how a file is read."""
    return READERS[path.suffix.lower()].__name__.removeprefix("read_")


def read_columns(wanted: Wanted, cache: Path, files: list[Path] | None = None) -> Columns:
    """Every row of `files`, one after the other, or of what `wanted.path` means where they are not given.

    Raises DataError where a source cannot be read, or is not what it should be.
    """
    columns = Columns()
    path = wanted.path
    try:
        if files is None:
            files = files_of(path) if is_local(path) else []
        for file in files:
            path = str(file)
            _take(_read_file(file, replace(wanted, path=path)), columns)
        if not files:
            _take(read_hub(wanted, cache), columns)
    except DataError:
        raise
    except Exception as error:  # the readers raise whatever their format's library raises
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            raise cause from None
        raise unreadable(path, cause) from error
    return columns


def unreadable(path: str | Path, cause: BaseException) -> DataError:
    """The error of a file, or of a dataset on the hub, that cannot be read."""
    way_out = "give a readable .parquet, .csv or .jsonl file, or the name of a dataset that the hub has"
    if isinstance(cause, ConnectionError):
        way_out = "look at the network and its proxy, or give a .parquet, .csv or .jsonl file"
    return DataError(
        f"data.path {path}: cannot be read ({type(cause).__name__}: {' '.join(str(cause).split())[:200]}); {way_out}"
    )


def _take(rows: Iterator[Row], columns: Columns) -> None:
    for text, label, others in rows:
        columns.texts.append(text)
        columns.labels.append(label)
        columns.others.append(others)


def _require_file(path: Path) -> None:
    """Raise DataError unless it is a file, not empty, of a kind that can be read."""
    if not path.exists():
        raise DataError(f"data.path {path}: no such file; give a .parquet, .csv or .jsonl file, or a hub name")
    if path.suffix.lower() not in READERS or not path.is_file():
        raise DataError(f"data.path {path}: not a {', '.join(sorted(READERS))} file")
    if path.stat().st_size == 0:
        raise DataError(f"data.path {path}: the file is empty; it needs a text and a label column")


def _read_file(path: Path, wanted: Wanted) -> Iterator[Row]:
    before = path.stat()
    with path.open("rb") as stream:  # not its name, which some libraries take for a pattern or an address
        yield from READERS[path.suffix.lower()](stream, wanted)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise fault(wanted, "was written to while it was read; run again once it is finished")
