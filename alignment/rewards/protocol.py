"""What a kind of reward is: a class that scores samples, and, where it needs a model, a function that makes that.

A package adds a reward by an entry point of the group `plumbline.rewards`, and its model's function, where there is
one, by an entry point of the same name in the group `plumbline.reward_models`. The two are two modules best: an edit of
the scoring then makes no model anew.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from alignment.config import AlignConfig
from alignment.kinds import REWARD_MODELS, REWARDS, registers
from alignment.stages.job import Counts, Job

Progress = Callable[[int, int], None]  # (done, total); it raises Interrupted to stop the work
Made = TypeVar("Made", bound="type[Reward]")


@dataclass(frozen=True)
class Scores:
    """One number per sample, in their order, and how many of the texts were read in part only."""

    values: Sequence[float]
    truncated: int = 0


class Reward(Protocol):
    """A kind of reward; `@reward("name")` registers the class, under the name that `reward.kind` takes."""

    def __init__(self, config: AlignConfig) -> None:
        """Settings are the configuration's; nothing is loaded yet."""

    def score(self, folder: Path, samples: Sequence[Mapping[str, Any]], progress: Progress | None = None) -> Scores:
        """The reward of each sample: the higher, the better; the score of one may not depend on the others.

        A sample has at least `prompt` and `text`, the whole text with the prompt. `folder` is that of the stage
        `reward`, which holds what the kind's `@reward_model` wrote, and is empty where there is none. `progress` takes
        (done, total). Stages call `alignment.rewards.checking.score`, which refuses scores that are not finite.
        """
        ...


RewardModel = Callable[[Job], Counts]
"""Fills `job.out`, the folder of the stage `reward`, and returns counts; checkpoints go to `job.work`.

`job.inputs["texts"]` is there where `reward.model` is `train`.
"""


def reward(name: str) -> Callable[[Made], Made]:
    """Register a class as the reward of this name."""
    return registers(REWARDS, name)


def reward_model(name: str) -> Callable[[RewardModel], RewardModel]:
    """Register the function that makes the model of the reward of this name."""
    return registers(REWARD_MODELS, name)
