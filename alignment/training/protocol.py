"""What a trainer is: a function that trains the policy on pairs, registered under the name that `dpo.trainer` takes.

A package adds one by an entry point of the group `plumbline.trainers`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from alignment.config import AlignConfig
from alignment.kinds import TRAINERS, registers
from alignment.models import Loaded
from alignment.training.harness import Progress

Row = dict[str, float]
"""One row of training metrics: its `step`, and figures by name."""


@dataclass(frozen=True)
class TrainingOutcome:
    """Logged metrics, one row every `dpo.log_every` steps, and the step after which training ended."""

    history: list[Row]
    steps: int
    stopped_early: bool


class Trainer(Protocol):
    """A kind of trainer; `@trainer("name")` registers the function."""

    def __call__(
        self,
        loaded: Loaded,
        pairs: Sequence[Mapping[str, Any]],
        config: AlignConfig,
        *,
        work: Path,
        progress: Progress | None = None,
        on_row: Callable[[Row], None] | None = None,
    ) -> TrainingOutcome:
        """Train `loaded.model` in place; it is saved as it is left, so it has to be a whole model then.

        With `dpo.adapter` it is peft's, all frozen but its adapter, which is merged when the trainer is done.

        A pair has `prompt_ids`, `chosen_ids` and `rejected_ids`, each a list of token ids, and `reference_chosen` and
        `reference_rejected`: the log-probs of the two completions under the model as it was loaded, sums in nats. Its
        `gap` is what the chosen one scores more, in the reward's units; None where they have no scores.
        Checkpoints go to `work`, and a run that finds one there goes on from it: `alignment.training.harness.fit` does
        so. `progress` takes (steps done, steps in all), and where it raises Interrupted the training keeps a checkpoint
        and raises that. `on_row` takes each row of metrics as it is logged. With `dpo.processes` each of several
        processes calls the function, and `fit` makes one training of that.
        """
        ...


def trainer(name: str) -> Callable[[Trainer], Trainer]:
    """Register a function as the trainer of this name."""
    return registers(TRAINERS, name)
