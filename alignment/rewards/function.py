"""The reward `function`: a Python function, called as TRL's trainers call theirs."""

import asyncio
import functools
import inspect
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from alignment.config import AlignConfig
from alignment.errors import ConfigError, ScoreError
from alignment.rewards.function_file import beside, function_file, load
from alignment.rewards.function_model import CODE
from alignment.rewards.protocol import Batches, InBatches, Scores, Scoring, reward

Sample = Mapping[str, Any]

RESERVED = {"prompt", "completion", "prompts", "completions", "completion_ids"}
"""Columns of these names are not passed: they would stand for something else."""


@reward("function")
class Function(InBatches):
    """Calls `reward.function` with up to `reward.batch_size` samples at a time."""

    def __init__(self, config: AlignConfig) -> None:
        """`reward.function` names it."""
        self.name = config.reward.function
        self.batch_size = config.reward.batch_size

    def score_batches(self, batches: Batches, work: Scoring) -> Generator[Scores]:
        """What the function gives each sample, None where it says so.

        Raises ConfigError where there is no such function, or it wants a column that the samples lack, and ScoreError
        where it raises, or gives more, fewer, or others than numbers.
        """
        self._require_same_code(work)
        first = done = 0
        with beside(self.name), _awaited(load(self.name)) as function:
            for samples in batches:
                values: list[float | None] = [None] * len(samples)
                for rows in self._batches(samples):
                    found = self._call(function, [samples[row] for row in rows], first + rows[0], first + rows[-1])
                    for row, value in zip(rows, found, strict=True):
                        values[row] = value
                    done += len(rows)
                    if work.progress is not None:
                        work.progress(done, batches.samples)
                first += len(samples)
                yield Scores(values)

    def _batches(self, samples: Sequence[Sample]) -> Iterator[list[int]]:
        """The numbers of the samples of each call, which are all of chats, or all of plain prompts."""
        for chats in (False, True):
            rows = [row for row, sample in enumerate(samples) if bool(sample.get("messages")) is chats]
            for start in range(0, len(rows), self.batch_size):
                yield rows[start : start + self.batch_size]

    def _call(
        self, function: Callable[..., Any], samples: Sequence[Sample], first: int, last: int
    ) -> list[float | None]:
        wanted = arguments(function, samples, self.name)
        try:
            found = function(**wanted)
            values = list(found)
        except Exception as error:  # the code of others raises whatever it likes
            raise ScoreError(
                f"reward.function {self.name}: raised {type(error).__name__}: {' '.join(str(error).split())[:200]}; it "
                f"was called with samples {first + 1} to {last + 1}, the first of them {_shown(samples[0])}; "
                "--debug shows where"
            ) from error
        if len(values) != len(samples):
            raise ScoreError(
                f"reward.function {self.name}: gave {len(values)} scores for {len(samples)} samples; it has to return "
                "a list with one for each, in their order"
            )
        return [_number(value, sample, self.name) for value, sample in zip(values, samples, strict=True)]

    def _require_same_code(self, work: Scoring) -> None:
        """Raise ScoreError where the file is no longer what the run began with: the key names that code's scores."""
        file, recorded = function_file(self.name), work.folder / CODE
        if file is None:
            return
        if not recorded.exists() or json.loads(recorded.read_text(encoding="utf-8"))["code"] != file.code:
            raise ScoreError(
                f"reward.function {self.name}: the file, or a module that it imports, was changed since the run began; "
                "run again, and it is scored by what stands there then"
            )


def arguments(function: Callable[..., Any], samples: Sequence[Sample], name: str = "") -> dict[str, Any]:
    """What TRL's GRPOTrainer passes a reward function for these samples: each a list, by name.

    Of chats a prompt is its messages and a completion a list of one assistant's message, else both are texts. Beside
    `completion_ids` and the row's columns there are `log_extra` and `log_metric`, which do nothing here, and, where
    the function names it, `trainer_state`. A function that does not take all of them gets those that it names. Raises
    ConfigError where it names one that is not there.
    """
    chats = any(sample.get("messages") for sample in samples)
    names = dict.fromkeys(column for sample in samples for column in sample.get("columns") or {})
    given: dict[str, Any] = {
        "prompts": [list(sample["messages"]) if chats else sample["prompt"] for sample in samples],
        "completions": [
            [{"role": "assistant", "content": sample["completion"]}] if chats else sample["completion"]
            for sample in samples
        ],
        "completion_ids": [list(sample.get("ids") or []) for sample in samples],
        "log_extra": _nothing,
        "log_metric": _nothing,
    }
    given |= {
        column: [(sample.get("columns") or {}).get(column) for sample in samples]
        for column in names
        if column not in RESERVED
    }
    parameters = inspect.signature(function).parameters.values()
    named = {each.name: each for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}
    if "trainer_state" in named:
        given["trainer_state"] = SimpleNamespace(global_step=0, max_steps=0, epoch=0.0)
    missing = [each.name for each in named.values() if each.default is each.empty and each.name not in given]
    if missing:
        raise ConfigError(
            f"reward.function {name}: takes `{missing[0]}`, which no row has; name that column in data.columns, or "
            "give the parameter a default"
        )
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return given
    return {name: value for name, value in given.items() if name in named}


@contextmanager
def _awaited(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """An async function as an ordinary one, whose calls share one event loop in a thread of its own."""
    if not is_async(function):
        yield function
        return
    runner = asyncio.Runner()
    with ThreadPoolExecutor(1, thread_name_prefix="reward-function") as thread:

        @functools.wraps(function)
        def call(**given: Any) -> Any:
            return thread.submit(lambda: runner.run(function(**given))).result()

        try:
            yield call
        finally:
            thread.submit(runner.close).result()


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call gives a coroutine: of an async function, a partial of one, or an object with an async call."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _number(value: Any, sample: Sample, name: str) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            raise TypeError("a text is no number")
        return float(value)
    except (TypeError, ValueError) as error:
        raise ScoreError(
            f"reward.function {name}: gave {value!r:.60} for {_shown(sample)}; it has to give a number, or None for a "
            "sample that it cannot score"
        ) from error


def _shown(sample: Sample) -> str:
    return repr(sample["completion"][:80])


def _nothing(*_: Any, **__: Any) -> None:
    """What a reward function would log in TRL."""
