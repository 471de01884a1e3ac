"""Stage `prompts`: prompts to train on and prompts that are held out, none on both sides."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import overload

from alignment.kinds import PROMPTS as SOURCES
from alignment.rows import PROMPTS, TEXTS, Text
from alignment.stages.job import Counts, Job
from alignment.stages.kept import base_model
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
    loaded = base_model(job)
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
    """The texts of a folder, each read when it is looked at, best in slices: few are needed of many."""

    def __init__(self, folder: Path) -> None:
        """None is read yet."""
        self._folder = folder

    def __len__(self) -> int:
        """How many there are."""
        return TEXTS.count(self._folder)

    def __iter__(self) -> Iterator[Text]:
        """All of them, in order."""
        return self._rows(0, len(self))

    @overload
    def __getitem__(self, index: int) -> Text: ...

    @overload
    def __getitem__(self, index: slice) -> list[Text]: ...

    def __getitem__(self, index: int | slice) -> Text | list[Text]:
        """A text, or several. Raises IndexError where there is none."""
        wanted = range(len(self))[index]
        if isinstance(wanted, int):
            return next(self._rows(wanted, wanted + 1))
        return list(self._rows(wanted.start, wanted.stop)) if wanted.step == 1 else [self[number] for number in wanted]

    def _rows(self, start: int, stop: int) -> Iterator[Text]:
        for batch in TEXTS.batches(self._folder, start=start, stop=stop):
            yield from batch.to_pylist()


def _held_out(job: Job) -> list[Text]:
    """The rows of `prompts.eval_path`, all of them, with the columns that the data's rows have."""
    from alignment.data.texts import load_texts

    data = job.config.data.model_copy(update={"path": job.config.prompts.eval_path, "mixture": (), "rows": 0})
    wanted = replace(wanted_rows(job.config, data), label="")
    return load_texts(data, job.config.seed, cache=job.work, wanted=wanted)[0]
