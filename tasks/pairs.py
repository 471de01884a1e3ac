"""Tasks that build pairs and validate them; a set that must not be trained on stops the run here."""

from prefect import task
from prefect.artifacts import create_table_artifact

from alignment.config import AlignConfig
from alignment.errors import ValidationError
from alignment.stages.store import StageRef
from tasks.registry import runs
from tasks.running import RETRIES, Refs, run_stage


@task(name="build pairs", **RETRIES)
def build_pairs(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """Chosen and rejected samples of each prompt."""
    return run_stage("pairs", config, keys, refs)


@task(name="validate pairs", **RETRIES)
def validate_pairs(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """Accepted and quarantined pairs, with a table of every check."""
    return run_stage("validation", config, keys, refs)


@task(name="require valid pairs", **RETRIES)
def require_valid(refs: Refs, run_id: str) -> None:
    """Show the checks in Prefect and MLflow, and raise ValidationError where a critical one of the whole set failed."""
    ref = refs["validation"]
    quarantined = ref.path / "quarantined.parquet"
    found = runs.read_json(ref.path / "checks.json")
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
    runs.log_file(run_id, ref.path / "checks.json", "validation")
    runs.log_file(run_id, quarantined, "validation")
    if found["problem"]:
        runs.log_counts(run_id, {name: stage.counts for name, stage in refs.items()})
        raise ValidationError(f"{found['problem']}; the quarantined pairs, with reasons, are in {quarantined}")
