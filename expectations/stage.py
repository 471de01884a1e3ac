"""Stage `validation`: each pair accepted, or quarantined with the names of the checks that it broke."""

from alignment.kinds import EXPECTATIONS
from alignment.rows import ACCEPTED, CHECKS, PAIRS, PROMPTS, QUARANTINED
from alignment.stages.job import Counts, Job
from alignment.stages.stage import stage
from alignment.stages.store import write_json


@stage(
    title="validate pairs",
    needs=("prompts", "pairs"),
    reads=lambda c: c.validation.model_dump(),
    makes=lambda _: "accepted and quarantined pairs",
    uses=lambda _: [(EXPECTATIONS, name) for name in EXPECTATIONS.names()],
    libraries=("great_expectations", "pandas", "numpy"),
)
def validation(job: Job) -> Counts:
    """Accepted and quarantined pairs, and the result of each check; a failed set check is recorded, not raised here."""
    import pandas as pd

    from expectations.runner import validate

    pairs = pd.read_parquet(job.inputs["pairs"] / PAIRS.file)
    prompts = pd.read_parquet(job.inputs["prompts"] / PROMPTS.file, columns=["prompt_id", "split"])
    held_out = set(prompts.loc[prompts["split"] == "eval", "prompt_id"])
    found = validate(pairs, job.config.validation, held_out)
    for table, frame in ((ACCEPTED, found.accepted), (QUARANTINED, found.quarantined)):
        frame.to_parquet(job.out / table.file, index=False, schema=table.schema)
    write_json(
        job.out / CHECKS,
        {
            "checks": [check.model_dump() for check in found.checks],
            "figures": found.figures,
            "problem": found.problem,
        },
    )
    return {"pairs": len(pairs), "accepted": len(found.accepted), "quarantined": len(found.quarantined)}
