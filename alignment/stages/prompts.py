"""Stage `prompts`: prompts to train on and prompts that are held out, none on both sides."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import overload

import pyarrow as pa

from alignment.kinds import PROMPTS as SOURCES
from alignment.parquet import GROUP_ROWS, OBJECT_ROWS
from alignment.rows import PROMPTS, TEXTS, Text
from alignment.stages.job import Counts, Job
from alignment.stages.outlined import base_outline
from alignment.stages.sources import prompts_source, wanted_rows
from alignment.stages.stage import MODELS, stage


@stage(
    title="make prompts",
    needs=("texts", "base"),
    reads=prompts_source,
    makes=lambda c: f"up to {c.prompts.count:,} to train on, {c.prompts.eval_count:,} held out",
    uses=lambda c: [(SOURCES, c.prompts.source)],
    libraries=MODELS,
)
def prompts(job: Job) -> Counts:
    """The prompts of both sides, in token ids; their text is for people, without special tokens."""
    from alignment.data.prompts.ids import read_ids
    from alignment.data.prompts.source import Prompts, Rows

    config = job.config
    loaded = base_outline(job)
    found: Prompts = SOURCES.get(config.prompts.source)(
        Rows(
            lambda: Texts(job.inputs["texts"]),
            partial(_held_out, job) if config.prompts.eval_path else None,
        ),
        loaded,
        config,
        read_ids(config.prompts.exclude) if config.prompts.exclude else set(),
    )
    PROMPTS.write(
        job.out,
        (
            {
                "prompt_id": prompt.id,
                "prompt_ids": list(prompt.ids),
                "prompt": loaded.decode([prompt.ids], [True])[0],
                "split": prompt.split,
                "messages": prompt.messages,
                "columns": prompt.columns,
            }
            for prompt in (*found.train, *found.held_out)
        ),
    )
    return found.counts


class Texts(Sequence[Text]):
    """The texts of a folder, each read when it is looked at: few are needed of many. The last row group is kept."""

    def __init__(self, folder: Path) -> None:
        """None is read yet."""
        self._folder = folder
        self._length = TEXTS.count(folder)
        self._first, self._group = 0, TEXTS.of([])

    def __len__(self) -> int:
        """How many there are."""
        return self._length

    def __iter__(self) -> Iterator[Text]:
        """All of them, in order."""
        return (text for start in range(0, len(self), OBJECT_ROWS) for text in self[start : start + OBJECT_ROWS])

    @overload
    def __getitem__(self, index: int) -> Text: ...

    @overload
    def __getitem__(self, index: slice) -> list[Text]: ...

    def __getitem__(self, index: int | slice) -> Text | list[Text]:
        """A text, or several. Raises IndexError where there is none."""
        wanted = range(len(self))[index]
        if isinstance(wanted, int):
            return self._rows(wanted, wanted + 1)[0]
        return self._rows(wanted.start, wanted.stop) if wanted.step == 1 else [self[number] for number in wanted]

    def _rows(self, start: int, stop: int) -> list[Text]:
        found: list[Text] = []
        while start < stop:
            if not self._first <= start < self._first + len(self._group):
                self._first = start - start % GROUP_ROWS
                batches = TEXTS.batches(self._folder, start=self._first, stop=self._first + GROUP_ROWS)
                self._group = pa.concat_tables(batches)
            found += self._group.slice(start - self._first, stop - start).to_pylist()
            start = self._first + len(self._group)
        return found


def _held_out(job: Job) -> list[Text]:
    """The rows of `prompts.eval_path`, all of them, with the columns that the data's rows have."""
    from alignment.data.texts import load_texts

    data = job.config.data.model_copy(update={"path": job.config.prompts.eval_path, "mixture": (), "rows": 0})
    wanted = replace(wanted_rows(job.config, data), label="")
    return load_texts(data, job.config.seed, cache=job.scratch, wanted=wanted)[0]
