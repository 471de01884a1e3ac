"""Tasks that compare the base and the aligned model, and judge the difference by the gates."""

from prefect import task

from alignment.config import AlignConfig
from alignment.judging.report import EvalReport, Judgement
from alignment.stages.store import StageRef
from tasks.running import GPU_SLOT, RETRIES, Refs, run_stage


@task(name="sample before", tags=[GPU_SLOT], **RETRIES)
def sample_before(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """The base model's fresh samples on held-out prompts."""
    return run_stage("before", config, keys, refs)


@task(name="sample after", tags=[GPU_SLOT], **RETRIES)
def sample_after(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """The aligned model's samples, same prompts and random numbers."""
    return run_stage("after", config, keys, refs)


@task(name="bring in the anchor", tags=[GPU_SLOT], **RETRIES)
def anchor_model(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """The first base of all rounds."""
    return run_stage("anchor", config, keys, refs)


@task(name="measure drift", tags=[GPU_SLOT], **RETRIES)
def measure_drift(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """How far the base and the aligned model are from the anchor."""
    return run_stage("drift", config, keys, refs)


@task(name="compare", **RETRIES)
def compare_models(config: AlignConfig, keys: dict[str, str], refs: Refs) -> StageRef:
    """The evaluation's report."""
    return run_stage("report", config, keys, refs)


@task(name="apply gates")
def apply_gates(config: AlignConfig, report: StageRef) -> Judgement:
    """The verdict; gates cost nothing, so they are applied anew in every run."""
    from alignment.judging.gates import judge

    return judge(read_report(report), config.gates)


def read_report(report: StageRef) -> EvalReport:
    """The report of a finished stage."""
    return EvalReport.model_validate_json((report.path / "report.json").read_text(encoding="utf-8"))
