"""What a kind of reward is: a class that scores samples, and, where it needs a model, a function that makes that.

A package adds a reward by an entry point of the group `plumbline.rewards`, and its model's function, where there is
one, by an entry point of the same name in the group `plumbline.reward_models`. The two are two modules best: an edit of
the scoring then makes no model anew.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from alignment.config import AlignConfig
from alignment.errors import ScoreError
from alignment.kinds import REWARD_MODELS, REWARDS, registers
from alignment.stages.job import Counts, Job

Progress = Callable[[int, int], None]  # (done, total); it raises Interrupted to stop the work
Made = TypeVar("Made", bound="type[Reward]")


@dataclass(frozen=True)
class Scoring:
    """What a reward scores with.

    `folder` is that of the stage `reward`, which holds what the kind's `@reward_model` wrote, and is empty where there
    is none. What costs money or hours is written to `kept`, a folder that outlives runs and that all runs of a home
    share, so that a crash never pays twice. `progress` takes (done, total). `scales` are the SDs that parts of a sum
    are divided by; without them, they are taken from the samples that are scored.
    """

    folder: Path
    kept: Path
    progress: Progress | None = None
    scales: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """One number per sample, in their order, and how many of the texts were read in part only.

    None where a sample got no score: it is counted and left out, and never taken for zero. `parts` are the scores that
    a sum was made of, by name, each in the samples' order. `counts` is what else is to be counted, such as calls.
    `scales` are the SDs that parts were divided by.
    """

    values: Sequence[float | None]
    truncated: int = 0
    parts: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Batches:
    """So many samples, a thousand or so at a time; each `go` goes through them anew, in their order."""

    samples: int
    go: Callable[[], Iterator[Sequence[Mapping[str, Any]]]]

    def __iter__(self) -> Iterator[Sequence[Mapping[str, Any]]]:
        """The batches, from the first on."""
        return self.go()


class Reward(Protocol):
    """A kind of reward; `@reward("name")` registers the class, under the name that `reward.kind` takes."""

    def __init__(self, config: AlignConfig) -> None:
        """Settings are those of `config.reward`; nothing is loaded yet."""

    def score(self, samples: Sequence[Mapping[str, Any]], work: Scoring) -> Scores:
        """The reward of each sample: the higher, the better; the score of one may not depend on the others.

        A sample has `prompt`, `completion` and `text`, which is both; `messages`, the prompt as a list of messages, or
        none where it is no chat; `columns`, further columns of its row by name; `ids`, the completion's token ids, and
        `finished`. Stages call `alignment.rewards.checking.score`, which refuses scores that are not finite.

        Of many samples there are a thousand or so at a time, each batch given to the same object. A kind that has to do
        something once for all of them derives from `InBatches`.
        """
        ...


class InBatches:
    """A kind that goes through batches by itself, and scores one as it scores many."""

    def score_batches(self, batches: Batches, work: Scoring) -> Generator[Scores]:
        """The scores of each batch, whose counts add up; `work.progress` is told of all samples."""
        raise NotImplementedError

    def score(self, samples: Sequence[Mapping[str, Any]], work: Scoring) -> Scores:
        """The same of one batch. Raises ScoreError where there are scores of none, or of more."""
        found = list(self.score_batches(Batches(len(samples), lambda: iter([samples])), work))
        if len(found) != 1:
            raise ScoreError(
                f"reward: {type(self).__name__} gave scores for {len(found)} batches and took 1; it has to give them "
                "for each batch that it takes, in their order"
            )
        return found[0]


RewardModel = Callable[[Job], Counts]
"""Fills `job.out`, the folder of the stage `reward`, and returns counts; checkpoints go to `job.work`.

`job.inputs["texts"]` is there where `reward.model` is `train`: the texts that this reward may learn from.
"""


def reward(name: str, *, labels: bool = True, given: bool = True, note: str = "") -> Callable[[Made], Made]:
    """Register a class as the reward of this name.

    Say `labels=False` of one that only `evaluation.gold` may name, `given=False` where `reward.model` can name no model
    but one that is trained here, and in `note` what a reader of its scores has to know. All are read without an import.
    """
    del labels, given, note
    return registers(REWARDS, name)


def reward_model(name: str, *, model: bool = True, context: bool = True) -> Callable[[RewardModel], RewardModel]:
    """Register the function that makes what the reward of this name scores by.

    Say `model=False` where `reward.model` does not say which model that is, and `context=False` where one that is
    trained here reads more than `reward.context` tokens.
    """
    del model, context  # read from here by `alignment.rewards.parts` and the configuration, without an import
    return registers(REWARD_MODELS, name)
