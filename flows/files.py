"""Files that a command writes for a person: there whole or not at all."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.errors import InputError

ROWS = (".jsonl", ".parquet")


def require_rows_file(target: Path) -> None:
    """Raise InputError for a file whose name does not say in which form rows are written to it."""
    if target.suffix not in ROWS:
        raise InputError(f"{target}: pairs are written as {' or '.join(ROWS)}; name such a file")


def write_rows(rows: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Write pairs as JSON lines or Parquet. Raises InputError where there are none, or the file cannot be written."""
    if not rows:
        raise InputError(f"{target}: no text of the run is preferred by people yet, so there is no pair to write")
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with draft_of(target) as draft:
        if target.suffix == ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), draft)
        else:
            draft.write_text(
                "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8", "backslashreplace"
            )


@contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """A file that takes the place of `target` once it is whole. Raises InputError where it cannot be written."""
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield draft
        draft.replace(target)
    except OSError as error:
        raise InputError(f"{target}: {error.strerror}; name a file that you may write") from error
    finally:
        draft.unlink(missing_ok=True)
