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
    for each figure of the judge: none where nothing was judged.
    """

    prompt_ids: Sequence[str]
    completions: Sequence[Tokens]  # token ids as sampled
    rewards: Array
    base_logprobs: Array  # under the base model
    policy_logprobs: Array  # under the model that wrote the sample
    finished: npt.NDArray[np.bool_]
    texts: Sequence[str]  # whole, prompts included
    judged: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for no samples at all, or for a column that has more or fewer of them than the others."""
        if not len(self.prompt_ids):
            raise ValueError("measured: no samples to evaluate")
        columns = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "judged"}
        for name, column in (columns | dict(self.judged)).items():
            if len(column) != len(self.prompt_ids):
                raise ValueError(f"measured: {len(column)} {name} for {len(self.prompt_ids)} prompt_ids")

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Completion lengths in tokens."""
        return np.array([len(completion) for completion in self.completions], dtype=np.int64)

    def columns(self, names: Sequence[str]) -> dict[str, Any] | None:
        """The columns of these names; None where one of them was not judged."""
        found = {name: self.judged.get(name, getattr(self, name, None)) for name in names}
        return None if any(column is None for column in found.values()) else found


def from_rows(rows: Sequence[Mapping[str, Any]]) -> Measured:
    """The rows of an evaluation as columns."""
    judged = [name for name in rows[0] if name.startswith(JUDGED)]
    return Measured(
        prompt_ids=[row["prompt_id"] for row in rows],
        completions=[row["ids"] for row in rows],
        rewards=np.array([row["reward"] for row in rows]),
        base_logprobs=np.array([row["base_logprob"] for row in rows]),
        policy_logprobs=np.array([row["logprob"] for row in rows]),
        finished=np.array([row["finished"] for row in rows]),
        texts=[row["text"] for row in rows],
        judged={name.removeprefix(JUDGED): np.array([row[name] for row in rows]) for name in judged},
    )
