"""The validation stage: pairs in, accepted and quarantined pairs and the checks' results out."""

import pandas as pd

from alignment.stages.job import Job
from alignment.stages.store import write_json


def validation(job: Job) -> dict[str, int]:
    """Pairs -> accepted.parquet, quarantined.parquet, checks.json; a failed set check is recorded, not raised here."""
    from expectations.runner import validate

    pairs = pd.read_parquet(job.inputs["pairs"] / "pairs.parquet")
    prompts = pd.read_parquet(job.inputs["prompts"] / "prompts.parquet", columns=["prompt_id", "split"])
    held_out = set(prompts.loc[prompts["split"] == "eval", "prompt_id"])
    found = validate(pairs, job.config.validation, held_out)
    found.accepted.to_parquet(job.out / "accepted.parquet", index=False)
    found.quarantined.to_parquet(job.out / "quarantined.parquet", index=False)
    write_json(
        job.out / "checks.json",
        {
            "checks": [check.model_dump() for check in found.checks],
            "figures": found.figures,
            "problem": found.problem,
        },
    )
    return {"pairs": len(pairs), "accepted": len(found.accepted), "quarantined": len(found.quarantined)}
