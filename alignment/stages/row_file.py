"""Rows in a file that are read one by one, in any order: a training takes them from there, and holds none of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

BATCH_ROWS = 64
"""Rows of a record batch, which is what is read for one row."""

Row = dict[str, Any]


class RowFile(Sequence[Row]):
    """The rows of tables as dicts; each is read from an Arrow file when it is asked for, by an int or a slice."""

    def __init__(self, path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Write the tables' rows to `path`; a file that stands there is replaced once the new one is whole."""
        draft, lengths = path.with_name(f".{path.name}"), [0]
        with pa.OSFile(str(draft), "wb") as stream, pa.ipc.new_file(stream, schema) as file:
            for table in tables:
                for batch in table.to_batches(BATCH_ROWS):
                    file.write_batch(batch)
                    lengths.append(len(batch))
        draft.rename(path)
        self._ends = np.cumsum(lengths)
        self._file = pa.ipc.open_file(pa.OSFile(str(path)))

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """A row, or several; raises IndexError where there is none."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        number = int(np.searchsorted(self._ends, row, side="right")) - 1
        batch = self._file.get_batch(number)
        return {name: batch[name][row - int(self._ends[number])].as_py() for name in batch.schema.names}
