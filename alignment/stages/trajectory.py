"""Stage `trajectory`: a policy measured on its way, by its fresh samples at some steps of its training."""

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config.frontier import frontier_of
from alignment.config.policy import for_any_model
from alignment.kinds import TRAINERS
from alignment.rows import HISTORY, TRAJECTORY
from alignment.stages import evaluating
from alignment.stages.drawing import draw
from alignment.stages.job import Counts, Job
from alignment.stages.kept import base_model, forget_model
from alignment.stages.policy import pairs_of, policy, untrained
from alignment.stages.sides import held_out
from alignment.stages.stage import MODELS, stage
from alignment.stages.store import write_json

if TYPE_CHECKING:  # it brings torch
    from alignment.models import Loaded

SNAPSHOTS, EVALUATIONS, TRAINED = "snapshots", "evaluations", "trained.json"
"""In `job.work`: models that are still to be measured, what was measured, each by its step, and a finished training."""


@stage(
    title="train and measure",
    needs=lambda c: ("base", "reward", "prompts", "reference", *evaluating.scaled(c)),
    reads=lambda c: {
        "training": policy.reads(c),
        "samples": evaluating.reads(c),
        **frontier_of(c).model_dump(include={"evaluate_every", "held_out"}),
    },
    makes=lambda c: f"{policy.makes(c)}, measured every {frontier_of(c).evaluate_every:,}",
    slots=1,
    trains=True,
    uses=lambda c: [*policy.uses(c), *evaluating.uses(c)],
    libraries=(*MODELS, "numpy"),
)
def trajectory(job: Job) -> Counts:
    """The samples of every evaluation, and the metrics of the training, which is that of the stage `policy`.

    An evaluation takes nothing from the training: neither random numbers nor weights. What was measured survives a
    crash, and the training goes on from its checkpoint: before one is written, each policy up to there was kept.
    """
    for folder in _numbered(job.work / SNAPSHOTS):  # of a run that was stopped before it had measured them
        _measure(job, int(folder.name), job.config.dpo.steps)
    if not (job.work / TRAINED).exists():
        _train(job)
    trained: dict[str, Any] = json.loads((job.work / TRAINED).read_text(encoding="utf-8"))
    _measure(job, trained["steps"], trained["steps"])
    found = [folder for folder in _numbered(job.work / EVALUATIONS) if int(folder.name) <= trained["steps"]]
    tables = [table for folder in found for table in TRAJECTORY.batches(folder)]
    own = set(TRAJECTORY.schema.names)
    further = {field.name: field.type for field in tables[0].schema if field.name not in own}
    with TRAJECTORY.writer(job.out, further) as out:
        for table in tables:
            out.append(table)
    write_json(job.out / HISTORY, trained["history"])
    return {
        "evaluations": len(found),
        "samples": sum(map(len, tables)),
        "steps": trained["steps"],
        "stopped_early": int(trained["stopped_early"]),
    }


def _train(job: Job) -> None:
    """Train the policy, measure it every so many steps, and keep it at the end; then say in `job.work` how it went."""
    forget_model()
    loaded, rows, every = untrained(job), pairs_of(job), frontier_of(job.config).evaluate_every

    def progress(done: int, total: int) -> None:
        due = done % every == 0 and done < total and not _evaluation(job, done).exists()
        if due:  # kept before a stop can be asked for: the training would go on behind this step
            with _aside():
                _keep(job, loaded, done)
        job.progress(done, total)
        if due:
            with _aside():
                _measure(job, done, total)

    outcome = TRAINERS.get(job.config.dpo.trainer)(
        loaded, rows, job.config, work=job.work, progress=progress, on_row=job.on_row
    )
    if not _evaluation(job, outcome.steps).exists():
        _keep(job, loaded, outcome.steps)
    ended = {"history": outcome.history, "steps": outcome.steps, "stopped_early": outcome.stopped_early}
    draft = job.work / f".{TRAINED}"
    write_json(draft, ended)
    draft.rename(job.work / TRAINED)


@contextmanager
def _aside() -> Iterator[None]:
    """What else is computed while a training waits: it gets its random numbers, threads and rounding back."""
    import numpy as np
    import torch

    from alignment.device import products

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    threads, own, numpys = torch.get_num_threads(), random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices), products(rounded=False):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            random.setstate(own)
            np.random.set_state(numpys)


def _keep(job: Job, loaded: "Loaded", step: int) -> None:
    """Write the policy as it stands, as a whole model; the one in training stays as it is."""
    from alignment import adapters, models
    from alignment.device import on_cpu

    with on_cpu():  # beside the one in training, a GPU may have no room for it
        copy = untrained(job, "fp32")
        if job.config.dpo.adapter == "none":
            copy.model.load_state_dict(loaded.model.state_dict())
        else:
            adapters.transfer(loaded.model, copy.model)
            copy = adapters.merge(copy)
    with _whole(job.work / SNAPSHOTS / str(step)) as draft:
        models.save(copy, draft)


def _measure(job: Job, step: int, total: int) -> None:
    """Draw and write the samples of the policy that was kept at a step; that one is not needed any more then."""
    from alignment import models
    from alignment.kl import divergence

    snapshot = job.work / SNAPSHOTS / str(step)
    if not _evaluation(job, step).exists():
        silent = replace(job, progress=lambda *_: job.progress(step, total))
        name, precision = f"the policy at step {step}", job.config.evaluation.precision
        in_sampling = job.config.sampling.precision
        loaded = models.load_base(snapshot, precision=in_sampling, field="sampling.precision", name=name)
        prompts = held_out(job.inputs["prompts"])[: frontier_of(job.config).held_out or None]
        sampling = for_any_model(job.config.sampling)
        rows = draw(silent, loaded, prompts, job.config.evaluation.samples_per_prompt, "eval", sampling)
        if in_sampling != precision:
            del loaded  # the same in another precision needs the memory
            loaded = models.load_base(snapshot, precision=precision, field=evaluating.MEASURED_IN, name=name)
        found = divergence(
            loaded.model,
            base_model(job, evaluating.MEASURED_IN).model,
            [row["prompt_ids"] for row in rows],
            [row["ids"] for row in rows],
            pad_id=loaded.pad_id,
            batch_tokens=job.config.sampling.batch_tokens,
            name=name,
            progress=silent.progress,
        )
        for number, row in enumerate(rows):
            row |= {"logprob": found.policy[number], "base_logprob": found.reference[number]}
            row["exact_logprob"] = precision == "fp32"
        measured: list[Any] = [{**row, "step": step, "kl": kl} for row, kl in zip(rows, found.kl, strict=True)]
        with _whole(_evaluation(job, step)) as draft:
            evaluating.write_judged(silent, TRAJECTORY, draft, measured)
    shutil.rmtree(snapshot, ignore_errors=True)


def _evaluation(job: Job, step: int) -> Path:
    return job.work / EVALUATIONS / str(step)


def _numbered(folder: Path) -> list[Path]:
    """The folders below one that are named by a step, in their order."""
    return sorted((path for path in folder.glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder that is there once it has been filled, and not before."""
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    draft.rename(folder)
