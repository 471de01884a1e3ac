"""What is measured of one model's samples: a column for each quantity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from alignment.judging.arithmetic import Tokens
from alignment.rows import JUDGED

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """One model's fresh samples on the held-out prompts: every column (samples,), in the same order.

    Log-probs are sums over the completion, in nats, EOS included where the sample ended by it. `judged` has a column
    for each figure of the judge: none where nothing was judged. `scored` says which samples have a reward, every one
    where it is None: figures of rewards are taken over those alone.
    """

    prompt_ids: Sequence[str]
    completions: Sequence[Tokens]  # token ids as sampled
    rewards: Array
    base_logprobs: Array  # under the base model
    policy_logprobs: Array  # under the model that wrote the sample
    finished: npt.NDArray[np.bool_]
    texts: Sequence[str]  # whole, prompts included
    judged: Mapping[str, Array] = field(default_factory=dict)
    scored: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for no samples at all, or for a column that has more or fewer of them than the others."""
        if not len(self.prompt_ids):
            raise ValueError("measured: no samples to evaluate")
        columns = {
            each.name: getattr(self, each.name) for each in fields(self) if each.name not in {"judged", "scored"}
        }
        columns["scored"] = self.has_reward
        for name, column in (columns | dict(self.judged)).items():
            if len(column) != len(self.prompt_ids):
                raise ValueError(f"measured: {len(column)} {name} for {len(self.prompt_ids)} prompt_ids")

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Completion lengths in tokens."""
        return np.array([len(completion) for completion in self.completions], dtype=np.int64)

    @property
    def has_reward(self) -> npt.NDArray[np.bool_]:
        """Which samples have a reward: (samples,)."""
        return np.ones(len(self.prompt_ids), dtype=np.bool_) if self.scored is None else self.scored

    @property
    def scores(self) -> Array:
        """The rewards of the samples that have one: (scored samples,)."""
        return self.rewards[self.has_reward]

    @property
    def unscored(self) -> int:
        """How many samples have no reward."""
        return int((~self.has_reward).sum())

    def columns(self, names: Sequence[str]) -> dict[str, Any] | None:
        """The columns of these names; None where one of them was not judged.

        Where `rewards` is one of them, they are of the samples that have a reward; None where there is none.
        """
        found = {name: self.judged.get(name, getattr(self, name, None)) for name in names}
        if any(column is None for column in found.values()):
            return None
        if "rewards" not in names or not self.unscored:
            return found
        kept = np.flatnonzero(self.has_reward)
        return {name: _take(column, kept) for name, column in found.items()} if kept.size else None


def from_rows(rows: Sequence[Mapping[str, Any]]) -> Measured:
    """The rows of an evaluation as columns."""
    judged = [name for name in rows[0] if name.startswith(JUDGED)]
    rewards = np.array([row["reward"] for row in rows], dtype=np.float64)  # nan for None
    return Measured(
        prompt_ids=[row["prompt_id"] for row in rows],
        completions=[row["ids"] for row in rows],
        rewards=rewards,
        base_logprobs=np.array([row["base_logprob"] for row in rows]),
        policy_logprobs=np.array([row["logprob"] for row in rows]),
        finished=np.array([row["finished"] for row in rows]),
        texts=[row["text"] for row in rows],
        judged={name.removeprefix(JUDGED): np.array([row[name] for row in rows]) for name in judged},
        scored=~np.isnan(rewards),
    )


def _take(column: Any, rows: npt.NDArray[np.int64]) -> Any:
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]
