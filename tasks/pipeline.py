"""The pipeline of this project: every stage, in order."""

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
from alignment.stages.reference import reference
from alignment.stages.report import report
from alignment.stages.reward import reward
from alignment.stages.samples import samples
from alignment.stages.scores import scores
from alignment.stages.texts import texts
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
    report,
)
