"""Runs the pipeline's stages in this process, one after the other, without a scheduler; what the store has is taken."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config import AlignConfig
from alignment.judging.report import EvalReport, Judgement
from alignment.rows import REPORT
from alignment.stages.job import Counts, Job
from alignment.stages.parts import fill, summed, with_parts
from alignment.stages.plan import KEY_LENGTH, lineage
from alignment.stages.stage import Stage
from alignment.stages.store import StageRef, Store, digest
from tasks.pipeline import PIPELINE

Heard = Callable[[StageRef], None]


def _deaf(ref: StageRef) -> None:
    """Hears of no stage."""


@dataclass(frozen=True)
class Finished:
    """A run that is finished: its stages by name, what its evaluation found, and what the gates made of it."""

    refs: Mapping[str, StageRef]
    report: EvalReport
    judgement: Judgement


def settings(config: AlignConfig) -> dict[str, Any]:
    """What decides a run's figures: not where its data and models lie, nor where it is registered.

    Defaults are left out, so that a field of a later release does not rename the runs of this one.
    """
    left_out: Any = {"registry": True, "data": {"path"}, "base": {"model"}}
    return config.model_dump(mode="json", exclude=left_out, exclude_defaults=True)


def named(settings: Any) -> str:
    """A short hash, by which a record says which settings its figures are of."""
    return digest(settings)[:16]


def run(config: AlignConfig, store: Store, heard: Heard = _deaf) -> Finished:
    """Every stage that the configuration asks for, and the gates; `heard` is told of each stage once it is there."""
    from alignment.judging.gates import judge

    refs = compute(config, store, heard=heard)
    text = (refs["report"].path / REPORT).read_text(encoding="utf-8")
    report = EvalReport.model_validate_json(text)
    return Finished(refs, report, judge(report, config.gates))


def compute(config: AlignConfig, store: Store, goal: str = "", heard: Heard = _deaf) -> dict[str, StageRef]:
    """The stages that a configuration asks for, by name; with a `goal`, that one and what it needs alone."""
    refs: dict[str, StageRef] = {}
    for stage in PIPELINE.wanted(config, goal):
        refs[stage.name] = _stage(stage, config, refs, store)
        heard(refs[stage.name])
    return refs


def _stage(stage: Stage, config: AlignConfig, refs: Mapping[str, StageRef], store: Store) -> StageRef:
    """One stage from the store, or computed, part by part where it has some."""
    made_of = lineage(stage, config, refs)
    key = digest(made_of)[:KEY_LENGTH]
    if (found := store.find(stage.name, key)) is not None:
        return found
    needed = {name: refs[name] for name in stage.needs(config)}

    def write(folder: str, name: str, parts: Sequence[StageRef] = (), **others: Any) -> StageRef:
        def filled(out: Path) -> Counts:
            return fill(
                stage,
                Job(
                    config,
                    inputs={each: ref.path for each, ref in needed.items()},
                    digests={each: ref.digest for each, ref in needed.items()},
                    out=out,
                    work=store.work(folder, name),
                    kept=store.kept,
                    read=made_of["config"],
                    parts=tuple(part.path for part in parts),
                    counted=summed(part.counts for part in parts),
                    **others,
                ),
            )

        with store.lock(folder, name):
            if (found := store.find(folder, name)) is None:
                spent = sum(part.seconds for part in parts)
                found = store.write(folder, name, filled, inputs=with_parts(made_of, parts), spent=spent)
            store.clear_work(folder, name)
        return found

    if stage.parts is None:
        return write(stage.name, key)
    folder = f"{stage.name}-parts"
    parts = [write(folder, f"{key}-{part[0]}-{part[1]}", part=part) for part in stage.parts.split(config, refs)]
    return write(stage.name, key, parts)
