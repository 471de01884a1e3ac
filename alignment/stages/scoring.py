"""The rewards of samples, by the configured kind."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignment.kinds import REWARDS
from alignment.rows import PART, PROMPTS, SCALES, Sample
from alignment.stages.job import Job

NO_REWARD = "none"
"""The kind that gives no sample a score."""

if TYPE_CHECKING:  # it brings the kinds of rewards
    from alignment.rewards.protocol import Scores


def rewards_of(job: Job, rows: Sequence[Sample]) -> "Scores":
    """The reward of each sample, None for one without, and how many of their texts were read in part only.

    Raises ScoreError where a score is not finite or more than half are missing, and what the kind of reward raises.
    """
    from alignment.rewards.checking import require_most, score
    from alignment.rewards.protocol import Scoring

    kind = REWARDS.get(job.config.reward.kind)(job.config)
    found = score(kind, with_prompts(job, rows), Scoring(job.inputs["reward"], job.kept, job.progress, scales_of(job)))
    if job.config.reward.kind != NO_REWARD:
        require_most(found.values, job.config.reward.kind)
    return found


def scales_of(job: Job) -> dict[str, float]:
    """The SDs that the stage `scores` divided parts of a sum by; none in that stage itself, which finds them."""
    if "scores" not in job.inputs:
        return {}
    found: dict[str, float] = json.loads((job.inputs["scores"] / SCALES).read_text(encoding="utf-8"))
    return found


def part_columns(scores: "Scores") -> dict[str, Sequence[float | None]]:
    """A column for each part of a sum."""
    return {f"{PART}{name}": values for name, values in scores.parts.items()}


def with_prompts(job: Job, rows: Sequence[Sample]) -> list[dict[str, Any]]:
    """The samples with `messages`, the chat of their prompt or an empty list, and `columns`, others of its row."""
    read = ["prompt_id", "messages", "columns"]
    found = {
        row["prompt_id"]: {"messages": _parsed(row["messages"], []), "columns": _parsed(row["columns"], {})}
        for row in PROMPTS.read(job.inputs["prompts"], read)
    }
    return [{**row, **found[row["prompt_id"]]} for row in rows]


def _parsed(text: str, empty: Any) -> Any:
    return json.loads(text) if text else empty
