"""Stage `trajectory_report`: what a policy's samples say of it at each evaluation, beside the base's own."""

from alignment.kinds import METRICS
from alignment.rows import EVALUATED, TRAJECTORY
from alignment.stages.job import Counts, Job
from alignment.stages.report import OF_OTHER_STAGES
from alignment.stages.stage import stage
from alignment.stages.store import write_json

STANDINGS, OF_BASE = "standings.json", "reference.json"


@stage(
    title="report the trajectory",
    needs=("before", "trajectory"),
    reads=lambda c: {
        "evaluation": c.evaluation.model_dump(exclude=OF_OTHER_STAGES | {"table_rows"}),
        "seed": c.seed,
    },
    makes=lambda c: f"{c.evaluation.bootstrap:,} bootstrap resamples of each evaluation",
    uses=lambda _: [(METRICS, name) for name in METRICS.names()],
    libraries=("numpy", "evaluate"),
)
def trajectory_report(job: Job) -> Counts:
    """The figures of each evaluation with its report, and those of the base on the same prompts."""
    import numpy as np
    import pyarrow.parquet as pq

    from alignment.judging import hf_metrics
    from alignment.judging.measured import from_rows
    from alignment.judging.report import as_json
    from alignment.judging.trajectory import reference, standing

    file = job.inputs["trajectory"] / TRAJECTORY.file
    both = pq.read_table(file, columns=["step", "prompt_id"])
    steps, prompts = sorted(both["step"].unique().to_pylist()), set(both["prompt_id"].unique().to_pylist())
    base = from_rows([row for row in EVALUATED.read(job.inputs["before"]) if row["prompt_id"] in prompts])
    metrics, found = hf_metrics.all_metrics(), []
    for number, step in enumerate(steps, 1):
        of_step = pq.read_table(file, filters=[("step", "=", step)]).to_pylist()  # one evaluation at a time in memory
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
