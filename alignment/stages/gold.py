"""Stage `gold`: what second judges, which label nothing, make of both models' samples."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from alignment.config import AlignConfig, RewardPart
from alignment.kinds import REWARD_MODELS, REWARDS
from alignment.rewards.parts import alone, is_trained
from alignment.rows import EVALUATED, GOLD, JUDGED_BY
from alignment.stages import set_aside
from alignment.stages.job import Counts, Job
from alignment.stages.scoring import with_prompts
from alignment.stages.sources import reward_model_kinds, reward_model_source, reward_source, scoring_kinds
from alignment.stages.stage import MODELS, stage

SIDES = ("before", "after")


def trains(config: AlignConfig) -> bool:
    """Whether a model of one of them is trained here."""
    return any(is_trained(part) for part in config.evaluation.gold)


def reads(config: AlignConfig) -> Any:
    """What decides their models and their scores."""
    judges = ((part.name, alone(config, part)) for part in config.evaluation.gold)
    sources = [(name, reward_model_source(judge), reward_source(judge)) for name, judge in judges]
    fraction = set_aside.part(config)
    return {"judges": sources, "set_aside": fraction} if fraction else sources


@stage(
    title="score by second judges",
    needs=lambda c: ("prompts", *SIDES, *(["texts"] if trains(c) else [])),
    reads=reads,
    makes=lambda c: f"scores by {', '.join(part.name for part in c.evaluation.gold) or 'nobody'}",
    slots=1,
    trains=trains,
    when=lambda c: bool(c.evaluation.gold),
    uses=lambda c: [*scoring_kinds(*c.evaluation.gold), *reward_model_kinds(*c.evaluation.gold)],
    libraries=(*MODELS, "scikit-learn"),
)
def gold(job: Job) -> Counts:
    """Each judge's score of each sample, in the order of the sides' samples; their models are not kept."""
    read = ["prompt_id", "prompt", "text", "completion", "ids", "finished", "index"]
    sides = {side: EVALUATED.read(job.inputs[side], read) for side in SIDES}
    job = set_aside.with_own_texts(job, second=True)
    samples = with_prompts(job, [row for side in SIDES for row in sides[side]])
    found = {f"{JUDGED_BY}{part.name}": scores_by(job, part, samples) for part in job.config.evaluation.gold}
    rows = [(side, row) for side in SIDES for row in sides[side]]
    GOLD.write(
        job.out,
        (
            {"side": side, "prompt_id": row["prompt_id"], "index": row["index"]}
            | {name: scores[number] for name, scores in found.items()}
            for number, (side, row) in enumerate(rows)
        ),
        dict.fromkeys(found, pa.float64()),
    )
    unscored = {
        f"{name.removeprefix(JUDGED_BY)}_unscored": sum(score is None for score in scores)
        for name, scores in found.items()
    }
    return {"samples": len(rows), **unscored}


def scores_by(job: Job, part: RewardPart, samples: Sequence[dict[str, Any]]) -> Sequence[float | None]:
    """The scores of one judge, by a model that is made for it; a training goes on where a crash left it.

    Raises ScoreError where it gives more than half of the samples no score.
    """
    from alignment.rewards.checking import require_most, score
    from alignment.rewards.protocol import Scoring

    config = alone(job.config, part)
    made, work = job.scratch / "made" / part.name, job.work / part.name
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    work.mkdir(exist_ok=True)
    if part.kind in REWARD_MODELS.names():
        REWARD_MODELS.get(part.kind)(replace(job, config=config, out=made, work=work))
    found = score(REWARDS.get(part.kind)(config), samples, Scoring(made, job.kept, job.progress))
    require_most(sum(value is None for value in found.values), len(samples), f"evaluation.gold {part.name}")
    return found.values
