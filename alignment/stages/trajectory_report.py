"""Stage `trajectory_report`: what a policy's samples say of it at each evaluation, beside the base's own."""

from alignment.kinds import METRICS
from alignment.rows import EVALUATED, TRAJECTORY
from alignment.stages.job import Counts, Job
from alignment.stages.stage import stage
from alignment.stages.store import write_json

STANDINGS, OF_BASE = "standings.json", "reference.json"


@stage(
    title="report the trajectory",
    needs=("before", "trajectory"),
    reads=lambda c: {"evaluation": c.evaluation.model_dump(exclude={"anchor", "gold", "table_rows"}), "seed": c.seed},
    makes=lambda c: f"{c.evaluation.bootstrap:,} bootstrap resamples of each evaluation",
    uses=lambda _: [(METRICS, name) for name in METRICS.names()],
    libraries=("numpy", "evaluate"),
)
def trajectory_report(job: Job) -> Counts:
    """The figures of each evaluation with its report, and those of the base on the same prompts."""
    import numpy as np

    from alignment.judging import hf_metrics
    from alignment.judging.measured import from_rows
    from alignment.judging.report import as_json
    from alignment.judging.trajectory import reference, standing

    rows = TRAJECTORY.read(job.inputs["trajectory"])
    prompts = {row["prompt_id"] for row in rows}
    base = from_rows([row for row in EVALUATED.read(job.inputs["before"]) if row["prompt_id"] in prompts])
    metrics, found = hf_metrics.all_metrics(), []
    steps = sorted({row["step"] for row in rows})
    for number, step in enumerate(steps, 1):
        of_step = [row for row in rows if row["step"] == step]
        found.append(
            standing(
                step,
                base,
                from_rows(of_step),
                np.array([row["kl"] for row in of_step]),
                metrics=metrics,
                config=job.config.evaluation,
                seed=job.config.seed,
            )
        )
        job.progress(number, len(steps))
    write_json(job.out / STANDINGS, [as_json(each) for each in found])
    write_json(job.out / OF_BASE, reference(base).row())
    return {"evaluations": len(steps), "prompts": len(prompts)}
