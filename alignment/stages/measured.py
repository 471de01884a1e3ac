"""The rows of an evaluation as the columns that a comparison takes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignment.rows import JUDGED

if TYPE_CHECKING:  # it brings numpy
    from alignment.judging.comparison import Measured


def measured(rows: Sequence[Mapping[str, Any]]) -> "Measured":
    """One model's samples, a column each."""
    import numpy as np

    from alignment.judging.comparison import Measured

    judged = f"{JUDGED}grammatical" in rows[0]
    return Measured(
        prompt_ids=[row["prompt_id"] for row in rows],
        completions=[row["ids"] for row in rows],
        rewards=np.array([row["reward"] for row in rows]),
        base_logprobs=np.array([row["base_logprob"] for row in rows]),
        policy_logprobs=np.array([row["logprob"] for row in rows]),
        finished=np.array([row["finished"] for row in rows]),
        texts=[row["text"] for row in rows],
        grammatical=np.array([row[f"{JUDGED}grammatical"] for row in rows]) if judged else None,
        gold=np.array([row[f"{JUDGED}gold_sentiment"] for row in rows]) if judged else None,
    )
