"""The rewards of samples, by the configured kind."""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from alignment.kinds import REWARDS
from alignment.parquet import OBJECT_ROWS
from alignment.rows import PART, PROMPTS, SAMPLES, SCALES, Sample
from alignment.stages.job import Job

NO_REWARD = "none"
"""The kind that gives no sample a score."""

if TYPE_CHECKING:  # it brings the kinds of rewards
    from alignment.rewards.protocol import Scores, Scoring

READ = ["prompt_id", "prompt", "completion", "text", "ids", "finished", "index"]
"""What of samples is read to score them."""

OF_PROMPTS = ["prompt_id", "messages", "columns"]


def rewards_of(job: Job, rows: Sequence[Sample]) -> "Scores":
    """The reward of each sample, None for one without, and how many of their texts were read in part only.

    Raises ScoreError where a score is not finite or more than half are missing, and what the kind of reward raises.
    """
    from alignment.rewards.checking import score

    found = score(REWARDS.get(job.config.reward.kind)(job.config), with_prompts(job, rows), scoring(job))
    require_scored(job, sum(value is None for value in found.values), len(rows))
    return found


def rewards_in_batches(job: Job, samples: Path, part: range) -> "Generator[Scores]":
    """The same of some samples of a folder, each prompt having as many, in batches of `OBJECT_ROWS` at most.

    `require_scored` is left to the end.
    """
    from alignment.rewards.checking import score_batches
    from alignment.rewards.protocol import Batches

    def rows() -> Iterator[list[dict[str, Any]]]:
        prompts = PromptsInOrder(job, part.start // job.config.sampling.samples_per_prompt)
        batches = SAMPLES.batches(samples, READ, rows=OBJECT_ROWS, start=part.start, stop=part.stop)
        return (prompts.joined(batch) for batch in batches)

    kind = REWARDS.get(job.config.reward.kind)(job.config)
    return score_batches(kind, Batches(len(part), rows), scoring(job))


def scoring(job: Job) -> "Scoring":
    """What the configured reward scores with."""
    from alignment.rewards.protocol import Scoring

    return Scoring(job.inputs["reward"], job.kept, job.progress, scales_of(job))


def require_scored(job: Job, missing: int, samples: int) -> None:
    """Raise ScoreError where a reward gives more than half of the samples no score."""
    from alignment.rewards.checking import require_most

    if job.config.reward.kind != NO_REWARD:
        require_most(missing, samples, job.config.reward.kind)


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
    wanted = pa.array({row["prompt_id"] for row in rows}, pa.string())
    found: dict[str, dict[str, Any]] = {}
    for batch in PROMPTS.batches(job.inputs["prompts"], OF_PROMPTS):
        for prompt in batch.filter(pc.is_in(batch["prompt_id"], value_set=wanted)).to_pylist():
            found[prompt["prompt_id"]] = _of_prompt(prompt)
    return [{**row, **found[row["prompt_id"]]} for row in rows]


class PromptsInOrder:
    """The same for samples that come in the prompts' order: each prompt is read once, and one at a time is held."""

    def __init__(self, job: Job, first: int = 0) -> None:
        """Before the prompt of this number, or one that comes later."""
        batches = PROMPTS.batches(job.inputs["prompts"], OF_PROMPTS, start=first)
        self._prompts = (prompt for batch in batches for prompt in batch.to_pylist())
        self._at, self._found = "", {}  # type: tuple[str, dict[str, Any]]

    def joined(self, samples: pa.Table) -> list[dict[str, Any]]:
        """The next samples as rows. Raises KeyError where one's prompt is none of those that are left."""
        return [row | self._of(row["prompt_id"]) for row in samples.to_pylist()]

    def _of(self, prompt_id: str) -> dict[str, Any]:
        while prompt_id != self._at:
            prompt = next(self._prompts, None)
            if prompt is None:
                raise KeyError(prompt_id)
            self._at, self._found = prompt["prompt_id"], prompt
        if "prompt_id" in self._found:
            self._found = _of_prompt(self._found)
        return self._found


def _of_prompt(prompt: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": _parsed(prompt["messages"], []), "columns": _parsed(prompt["columns"], {})}


def _parsed(text: str, empty: Any) -> Any:
    return json.loads(text) if text else empty
