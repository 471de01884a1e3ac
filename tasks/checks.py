"""What may stop a run between two stages: labels of one class, nothing new to learn from, pairs that are not valid."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

from prefect import task

from alignment.config import AlignConfig
from alignment.data.labels import Labels, require_two_classes
from alignment.data.pairs.strategies import pair
from alignment.errors import NothingNewError, ValidationError
from alignment.rewards.parts import is_trained
from alignment.rows import ACCEPTED, CHECKS, LABELS, MEASURED, QUARANTINED
from alignment.stages import set_aside
from alignment.stages.sources import labels_are_read, pairs_are_sampled
from alignment.stages.stage import Refs
from alignment.stages.store import StageRef
from expectations.gaps import explain_gaps
from tasks.registry import records
from tasks.run_log import run_logger
from tasks.running import RETRIES
from tasks.showing import show_checks

CHANCE = 0.55
"""Accuracy on held-out texts of two classes, up to which a reward model is hardly better than a coin."""


def require_labels(config: AlignConfig, refs: Refs, _: str) -> None:
    """Raise DataError where a reward model is to be trained on labels that are not of two classes."""
    if labels_are_read(config):
        require_two_classes(Labels.model_validate_json((refs["texts"].path / LABELS).read_bytes()), config.data)


def warn_of_chance(config: AlignConfig, refs: Refs, _: str) -> None:
    """Warn where the reward model that was trained here is right about as many held-out texts as chance would be."""
    file = refs["reward"].path / MEASURED
    accuracy = records.read_json(file).get("validation_accuracy") if file.exists() else None
    if accuracy is not None and accuracy < CHANCE:
        run_logger().warning(
            "the reward model is right about %.0f%% of held-out texts, where chance is right about half: it scores "
            "them nearly alike, and few pairs will pass validation.min_gap = %g. Train it longer (reward.steps = %d), "
            "or on more rows (data.rows = %d)",
            100 * accuracy,
            config.validation.min_gap,
            config.reward.steps,
            config.data.rows,
        )


def warn_of_set_aside(config: AlignConfig) -> None:
    """Warn where second judges that are trained here take texts from the training of the reward."""
    if fraction := set_aside.part(config):
        run_logger().warning(
            "the reward model learns from %.0f%% of the texts, as the others train %s (evaluation.gold): its scores, "
            "and so pairs and policy, are not those of a run without. Name a judge with a model of its own, give more "
            "rows (data.rows = %d), or set fewer aside (evaluation.gold_fraction = %g)",
            100 * (1 - fraction),
            ", ".join(judge.name for judge in config.evaluation.gold if is_trained(judge)),
            config.data.rows,
            fraction,
        )


def warn_of_reward(config: AlignConfig, refs: Refs, run_id: str) -> None:
    """Both warnings of a reward model that was trained here."""
    warn_of_set_aside(config)
    warn_of_chance(config, refs, run_id)


def require_new(config: AlignConfig, refs: Refs, _: str) -> None:
    """Raise NothingNewError where earlier rounds have left fewer prompts than a set of pairs needs."""
    prompts = refs["prompts"]
    if not pairs_are_sampled(config):
        return
    new, used, bounds = prompts.counts["train"], prompts.counts.get("used_before", 0), config.validation
    each = len(pair(range(config.sampling.samples_per_prompt), config.pairs.strategy, seed="").pairs)
    needed = max(bounds.min_distinct_prompts, math.ceil(bounds.min_pairs / max(each, 1)))
    if used and new < needed:
        raise NothingNewError(
            f"nothing new to learn from: {new} prompts that no earlier round has used ({used} were), and a round needs "
            f"{needed} (validation.min_distinct_prompts, validation.min_pairs); give new texts in data.path"
        )


@task(name="require valid pairs", **RETRIES)
def require_valid(ref: StageRef, counts: Mapping[str, Mapping[str, int]], run_id: str, min_gap: float) -> None:
    """Show the checks in Prefect and MLflow, and raise ValidationError where a critical one of the whole set failed.

    `counts` of the stages so far are recorded then, and where `min_gap` set most pairs apart the error says how their
    gaps lie.
    """
    quarantined = QUARANTINED.files(ref.path)
    found = records.read_json(ref.path / CHECKS)
    show_checks(found, ref.counts)
    records.log_file(run_id, ref.path / CHECKS, "validation")
    _log_quarantined(run_id, ref)
    if found["problem"]:
        records.log_counts(run_id, counts)
        told = "; ".join(filter(None, (found["problem"], explain_gaps(_gaps(ref), min_gap))))
        where = f"{quarantined[0]}" if len(quarantined) == 1 else f"{len(quarantined)} files, first {quarantined[0]}"
        raise ValidationError(f"{told}; the quarantined pairs, with reasons, are in {where}")


def _log_quarantined(run_id: str, ref: StageRef) -> None:
    """Log the quarantined pairs as one file, also where they are in parts."""
    files = QUARANTINED.files(ref.path)
    if len(files) == 1:
        records.log_file(run_id, files[0], "validation")
        return
    with tempfile.TemporaryDirectory() as folder:
        with QUARANTINED.writer(Path(folder)) as out:
            for batch in QUARANTINED.batches(ref.path):
                out.append(batch)
        records.log_file(run_id, Path(folder) / QUARANTINED.file, "validation")


def _gaps(ref: StageRef) -> list[float]:
    """The score gaps of all pairs that have one."""
    batches = (batch for table in (ACCEPTED, QUARANTINED) for batch in table.batches(ref.path, ["gap"]))
    return [gap for batch in batches for gap in batch["gap"].drop_null().to_pylist()]
