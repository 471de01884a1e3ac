"""Tasks that build pairs and validate them; a set that must not be trained on stops the run here."""

import json

from prefect import task
from prefect.artifacts import create_table_artifact

from alignment.config import AlignConfig
from alignment.errors import ValidationError
from alignment.store import StageRef
from tasks.running import RETRIES, Refs, run_stage


@task(name="build pairs", **RETRIES)
def build_pairs(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """Chosen and rejected samples of each prompt."""
    return run_stage("pairs", config, keys, refs)


@task(name="validate pairs", **RETRIES)
def validate_pairs(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """Accepted and quarantined pairs, with a table of every check."""
    return run_stage("validation", config, keys, refs)


@task(name="require valid pairs")
def require_valid(ref: StageRef) -> None:
    """Show the checks as a table, and raise ValidationError where a critical check of the whole set failed."""
    found = json.loads((ref.path / "checks.json").read_text(encoding="utf-8"))
    create_table_artifact(
        key="validation",
        table=[
            {
                "check": check["name"],
                "of": check["scope"],
                "severity": check["severity"],
                "observed": check["observed"],
                "bound": check["bound"],
                "passed": "yes" if check["passed"] else "NO",
            }
            for check in found["checks"]
        ],
        description=f"{ref.counts['accepted']} pairs accepted, {ref.counts['quarantined']} quarantined",
    )
    if found["problem"]:
        raise ValidationError(found["problem"])
