"""One policy at one step of its training as figures: reward, both KLs with their errors, and the report for the gates.

Pure: from per-sample columns to plain records, and from those, once gates have judged, to points of a frontier.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alignment.config import AlignConfig, EvaluationConfig
from alignment.judging.arithmetic import distinct_n, token_entropy
from alignment.judging.comparison import Metrics, compare
from alignment.judging.frontier import FrontierPoint, Reference
from alignment.judging.measured import Measured
from alignment.judging.report import EvalReport, Judgement, Record

Values = npt.NDArray[np.float64]


class Standing(Record):
    """A policy after `step` steps of training; means over prompts, each with its standard error over prompts.

    `kl` is exact over the vocabulary at each position of its samples, `kl_sampled` the mean log-ratio of the same ones,
    both in nats per sequence. `report` compares it with the base on the same prompts.
    """

    step: int
    reward: float
    reward_se: float
    kl: float
    kl_se: float
    kl_sampled: float
    kl_sampled_se: float
    report: EvalReport


def standing(
    step: int,
    base: Measured,
    policy: Measured,
    kl: Values,
    *,
    metrics: Metrics,
    config: EvaluationConfig,
    seed: int,
) -> Standing:
    """What a policy's samples say of it; `kl` (samples,) is the exact one of each. Raises as `compare` does."""
    ids = np.asarray(policy.prompt_ids)
    reward = over_prompts(policy.scores, ids[policy.has_reward])
    exact, sampled = over_prompts(kl, ids), over_prompts(policy.policy_logprobs - policy.base_logprobs, ids)
    return Standing(
        step=step,
        reward=reward[0],
        reward_se=reward[1],
        kl=exact[0],
        kl_se=exact[1],
        kl_sampled=sampled[0],
        kl_sampled_se=sampled[1],
        report=compare(base, policy, metrics=metrics, winners_mean=None, config=config, seed=seed),
    )


def reference(base: Measured) -> Reference:
    """The base's own samples, where every training starts."""
    ids = np.asarray(base.prompt_ids)
    reward, error = over_prompts(base.scores, ids[base.has_reward])
    prompts = len(set(base.prompt_ids))
    return Reference(
        reward=reward,
        reward_se=error,
        entropy=token_entropy(base.completions),
        distinct_2=distinct_n(base.completions, 2),
        tokens=float(base.lengths.mean()),
        prompts=prompts,
        samples=len(base.prompt_ids) // prompts,
    )


def over_prompts(values: Values, prompt_ids: Sequence[str] | npt.NDArray[Any]) -> tuple[float, float]:
    """The mean over prompts of a prompt's mean, and its standard error over prompts; nan where too few have any."""
    prompts, owners = np.unique(np.asarray(prompt_ids), return_inverse=True)
    if not prompts.size:
        return float("nan"), float("nan")
    with np.errstate(invalid="ignore"):
        means = np.bincount(owners, weights=values, minlength=prompts.size) / np.bincount(owners)
        error = np.std(means, ddof=1) / np.sqrt(prompts.size) if prompts.size > 1 else np.nan
    return float(means.mean()), float(error)


def point(config: AlignConfig, found: Standing, judgement: Judgement) -> FrontierPoint:
    """A policy as a point of the frontier, with what the gates made of it."""
    dpo, aligned, delta = config.dpo, found.report.aligned, found.report.delta
    return FrontierPoint(
        loss=dpo.loss,
        divergence=dpo.divergence,
        beta=dpo.beta,
        learning_rate=dpo.learning_rate,
        seed=config.seed,
        step=found.step,
        reward=found.reward,
        reward_se=found.reward_se,
        kl=found.kl,
        kl_se=found.kl_se,
        kl_sampled=found.kl_sampled,
        kl_sampled_se=found.kl_sampled_se,
        entropy=aligned.entropy,
        distinct_2=aligned.distinct_2,
        perplexity_ratio=delta.perplexity_ratio,
        kl_per_token=delta.kl_per_token,
        passed=judgement.verdict == "pass",
        refused_by=tuple(gate.name for gate in judgement.gates if not gate.passed),
    )


def reward_matrix(prompt_ids: Sequence[str], rewards: Values) -> tuple[Values, int]:
    """The rewards of a prompt's samples as [prompts, N], and how many prompts were left out.

    N is as many as each prompt has that is not left out: the first so many that have a reward. Those are left out that
    have one for fewer than half as many samples as the prompt with the most, since N would be theirs.
    """
    scored = np.isfinite(rewards)
    prompts, owners = np.unique(np.asarray(prompt_ids), return_inverse=True)
    counts = np.bincount(owners[scored], minlength=prompts.size)
    kept = 2 * counts >= max(counts.max(initial=0), 1)
    size = counts[kept].min(initial=counts.max(initial=0))
    ordered = np.asarray(rewards, dtype=np.float64)[scored][np.argsort(owners[scored], kind="stable")]
    firsts = (np.cumsum(counts) - counts)[kept]
    return ordered[firsts[:, None] + np.arange(size)], int(prompts.size - kept.sum())
