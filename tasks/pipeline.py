"""The pipelines of this project, every stage in order: of a run, and of each training of a frontier."""

from collections.abc import Mapping

from alignment.stages.after import after
from alignment.stages.anchor import anchor
from alignment.stages.base import base
from alignment.stages.before import before
from alignment.stages.drift import drift
from alignment.stages.gold import gold
from alignment.stages.pairs import pairs
from alignment.stages.plan import Pipeline
from alignment.stages.policy import policy
from alignment.stages.prompts import prompts
from alignment.stages.ranking import ranking
from alignment.stages.realism import realism
from alignment.stages.reference import reference
from alignment.stages.reference_samples import reference_samples
from alignment.stages.regression import regression
from alignment.stages.report import report
from alignment.stages.reward import reward
from alignment.stages.samples import samples
from alignment.stages.scores import scores
from alignment.stages.stage import Stage
from alignment.stages.texts import texts
from alignment.stages.trajectory import trajectory
from alignment.stages.trajectory_report import trajectory_report
from expectations.stage import validation

PIPELINE = Pipeline(
    texts,
    base,
    reward,
    prompts,
    samples,
    scores,
    pairs,
    validation,
    reference,
    policy,
    before,
    after,
    anchor,
    drift,
    ranking,
    gold,
    realism,
    regression,
    report,
)

FRONTIER = Pipeline(
    texts,
    base,
    reward,
    prompts,
    samples,
    scores,
    pairs,
    validation,
    reference,
    before,
    reference_samples,
    trajectory,
    trajectory_report,
)
"""Up to the policy it is the same, and so are the results."""

STAGES: Mapping[str, Stage] = {**PIPELINE, **FRONTIER}
"""Every stage of either, by name."""
