"""Stage `regression`: what the base and the aligned model reach on tasks that have nothing to do with the reward."""

from functools import partial
from importlib.metadata import version

from alignment.judging.regression import Score, measure, read_tasks
from alignment.rows import MODEL, TASKS
from alignment.stages.job import Counts, Job, share
from alignment.stages.kept import forget_model
from alignment.stages.stage import MODELS, stage
from alignment.stages.store import write_json


@stage(
    title="measure on tasks",
    needs=("base", "policy"),
    reads=lambda c: {
        "tasks": [task.source for task in read_tasks(c.evaluation.tasks)],
        "rows": c.evaluation.task_rows,
        "precision": c.evaluation.precision,
        "seed": c.seed,
        "lm_eval": version("lm_eval") if c.evaluation.tasks else "",
    },
    makes=lambda c: f"both models on {', '.join(c.evaluation.tasks) or 'no task'}",
    slots=1,
    when=lambda c: bool(c.evaluation.tasks),
    libraries=(*MODELS, "datasets", "numpy"),
)
def regression(job: Job) -> Counts:
    """Both models on each task, one after the other."""
    from alignment import models

    tasks, rows = read_tasks(job.config.evaluation.tasks), job.config.evaluation.task_rows
    scores: list[dict[str, Score]] = []
    forget_model()
    for side, name in (("base", f"base.model {job.config.base.model}"), ("policy", "the aligned model")):
        progress = share(job.progress, len(scores) * len(tasks), len(tasks), 2 * len(tasks))
        load = partial(models.load_base, precision=job.config.evaluation.precision, field="evaluation.precision")
        loaded = load(job.inputs[side] / MODEL, name=name)
        scores.append(measure(loaded, tasks, rows, job.config.seed, progress))
        del loaded  # the next model needs the memory
    base, aligned = scores
    write_json(
        job.out / TASKS,
        [
            {
                "task": task.name,
                "metric": base[task.name].metric,
                "samples": base[task.name].samples,
                "base": base[task.name].value,
                "base_error": base[task.name].error,
                "aligned": aligned[task.name].value,
                "aligned_error": aligned[task.name].error,
            }
            for task in tasks
        ],
    )
    return {"tasks": len(tasks), "samples": sum(score.samples for score in base.values())}
